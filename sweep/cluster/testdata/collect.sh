#!/bin/sh
# evenkeel cluster slurm wrote this. It runs when no shard is left, whatever became of them.
exec /opt/evenkeel collect /data/rates
