#!/bin/sh
# evenkeel cluster slurm wrote this. A task of the array is a shard of the sweep; exit code 75 asks for another try.
program=/opt/evenkeel
dir=/data/rates
"$program" run --plan "$dir/plan.json" --shard "$SLURM_ARRAY_TASK_ID/40" --out "$dir" --workers "${SLURM_CPUS_PER_TASK:-1}" &
child=$!
late=
trap 'late=yes; kill -TERM "$child"' USR1 # the limit of time is near
wait "$child"
code=$?
if [ "$late" ]; then
	wait "$child" # the signal ended the first wait
	code=$?
fi
if [ "$code" -eq 75 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 5 ]; then
	scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
fi
exit "$code"
