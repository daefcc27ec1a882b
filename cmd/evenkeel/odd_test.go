package main

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"evenkeel/internal/npz"
)

// numbers is an array of float32, or of int32 where v holds those.
func numbers[V float32 | int32](name string, shape []int, v ...V) npz.Array {
	a := npz.Array{Name: name, DType: npz.Int32, Shape: shape}
	for _, x := range v {
		bits := uint32(int32(x))
		if f, ok := any(x).(float32); ok {
			a.DType, bits = npz.Float32, math.Float32bits(f)
		}
		a.Data = binary.LittleEndian.AppendUint32(a.Data, bits)
	}
	return a
}

// Traces at the edge of what has a meaning, through every command that reads one, with settings that do not fit: an answer, or
// one sentence that says what would be right.
func TestOddTraces(t *testing.T) {
	t.Setenv("COLUMNS", "100")
	big, nan, inf := float32(3e38), float32(math.NaN()), float32(math.Inf(1))
	logits := func(shape []int, v ...float32) string { return npzOf(t, numbers("logits", shape, v...)) }
	ids := func(shape []int, v ...int32) string { return npzOf(t, numbers("topk_ids", shape, v...)) }
	counts := func(shape []int, v ...int32) string { return npzOf(t, numbers("counts", shape, v...)) }
	traces := map[string]string{
		"one token":           logits([]int{1, 4}, 1, 2, 3, 4),
		"two tokens":          logits([]int{2, 4}, 1, 2, 3, 4, 4, 3, 2, 1),
		"no tokens":           npzOf(t, npz.Array{Name: "logits", DType: npz.Float32, Shape: []int{0, 4}}),
		"no layers":           npzOf(t, npz.Array{Name: "logits", DType: npz.Float32, Shape: []int{0, 2, 4}}),
		"one expert":          logits([]int{2, 1}, 1, 2),
		"equal logits":        logits([]int{2, 4}, 0, 0, 0, 0, 0, 0, 0, 0),
		"huge logits":         logits([]int{2, 4}, big, -big, big, -big, -big, -big, -big, -big),
		"infinite logit":      logits([]int{2, 4}, 1, 2, 3, 4, 4, 3, inf, 1),
		"NaN in layer 1":      logits([]int{2, 2, 4}, 1, 2, 3, 4, 4, 3, 1, 1, 1, 2, 3, 4, 4, 3, nan, 1),
		"scores of 0":         npzOf(t, numbers[float32]("scores", []int{2, 4}, 0, 0, 0, 0, 0, 0, 0, 0)),
		"huge scores, bias":   npzOf(t, numbers("scores", []int{2, 4}, big, big, big, big, 0, 0, 0, 0), numbers("bias", []int{4}, big, -big, big, -big)),
		"weights of NaN":      npzOf(t, numbers[int32]("topk_ids", []int{2, 2}, 0, 1, 2, 3), numbers("topk_weights", []int{2, 2}, nan, 1, 1, 1)),
		"weights of 0":        npzOf(t, numbers[int32]("topk_ids", []int{2, 2}, 0, 1, 2, 3), numbers[float32]("topk_weights", []int{2, 2}, 0, 0, 0, 0)),
		"padding":             ids([]int{2, 2}, -1, -1, -1, -1),
		"a layer of padding":  ids([]int{2, 2, 2}, -1, -1, -1, -1, 0, 1, 2, 3),
		"domain of padding":   npzOf(t, numbers[int32]("topk_ids", []int{2, 2, 2}, -1, -1, 0, 1, 0, 1, 2, 3), numbers[int32]("domain", []int{2}, 0, 1)),
		"one choice":          ids([]int{1, 1}, 0),
		"five experts":        ids([]int{5, 2}, 0, 1, 2, 3, 0, 3, 1, 4, 2, 0),
		"all experts chosen":  ids([]int{2, 2}, 0, 1, 1, 0),
		"an id of -2":         ids([]int{2, 2}, 0, 1, -2, 0),
		"no choices":          npzOf(t, npz.Array{Name: "topk_ids", DType: npz.Int8, Shape: []int{2, 0}}),
		"more K than experts": ids([]int{2, 3}, 0, -1, -1, 1, -1, -1),
		"counts of 0":         counts([]int{2, 1, 4}, 0, 0, 0, 0, 0, 0, 0, 0),
		"counts at the end":   counts([]int{6, 1, 4}, append(make([]int32, 20), 1, 2, 3, 4)...),
		"counts in a layer":   counts([]int{1, 2, 4}, 1, 0, 0, 0, 0, 0, 0, 0),
		"huge counts":         counts([]int{2, 1, 2}, math.MaxInt32, 0, math.MaxInt32, 1),
		"a count of -1":       counts([]int{1, 1, 4}, 1, -1, 0, 0),
		"no steps":            npzOf(t, npz.Array{Name: "counts", DType: npz.Int32, Shape: []int{0, 1, 4}}),
	}
	requests := []string{"fit", "fit --set topk=2", "fit --set topk=0", "fit --set topk=9", "fit --set experts=0", "fit --set topk=2 --set groups=3",
		"fit --set topk=2 --cut 1", "fit --layer 1", "convert", "convert --set topk=1"}
	for _, more := range []string{"", "--per-layer", "--json", "--json --set topk=2", "--ranks 3", "--ranks 0", "--ranks -1", "--ranks 8", "--ranks 2",
		"--set topk=0", "--set topk=1 --set score=softmax", "--set topk=4", "--set topk=9", "--set topk=4097", "--batch 0", "--batch 1 --set topk=2",
		"--set experts=1", "--set experts=4096", "--set experts=4097", "--set padding=1", "--layer 1", "--layer -2"} {
		requests = append(requests, "inspect "+more)
	}
	for _, more := range []string{"", "--set topk=0", "--set topk=2", "--set topk=4", "--set topk=9", "--set topk=2 --set groups=3", "--set topk=2 --set ranks=3",
		"--set topk=2 --set ranks=0", "--set topk=2 --set tokens=0", "--set topk=2 --set tokens=1", "--set topk=2 --set groups=2 --set groups_kept=1",
		"--set trace.complete=flat", "--set trace.complete=popularity --set trace.mass=0.5"} {
		requests = append(requests, "compare --steps 2 --seeds 1 -s none -s loss-free --layers all "+more)
	}
	answered := 0
	for name, file := range traces {
		out := filepath.Join(t.TempDir(), "out")
		for _, request := range requests {
			args := strings.Fields(request)
			switch args[0] {
			case "compare":
				args = append(args, "--scenario", "trace:"+file)
			case "convert":
				args = append(args, file, "--out", out+".npz")
			case "inspect":
				args = append(args, file)
				if slices.Contains(args, "--json") { // pictures take long
					args = append(args, "--out", out)
				}
			default:
				args = append(args, file)
			}
			code, printed, stderr := evenkeel(t, args...)
			switch {
			case code == 0:
				answered++
				if strings.Contains(printed, "NaN") || strings.Contains(printed, "Inf") {
					t.Errorf("%s, %s: %s", name, request, printed)
				}
			case code != exitRequest || !strings.HasPrefix(stderr, "evenkeel: ") || strings.Count(stderr, "\n") != 1:
				t.Errorf("%s, %s: exit %d, %q", name, request, code, stderr)
			}
		}
	}
	if answered < len(traces) {
		t.Errorf("only %d requests were answered", answered)
	}
	for request, want := range map[string]string{
		"inspect --set topk=9 " + traces["counts at the end"]: "--set topk=9: it must be 1 to experts, which is 4",
		"inspect --ranks 0 " + traces["padding"]:              "--ranks is 0: it must be at least 1, and divide the experts",
		"inspect --ranks 3 " + traces["five experts"]:         "--ranks is 3: it must divide the experts, of which",
		"inspect " + traces["NaN in layer 1"]:                 "no topk_ids",
		"inspect --set topk=2 " + traces["NaN in layer 1"]:    "logits of layer 1 is NaN at token 1, expert 2: every number must be finite",
		"fit " + traces["counts at the end"]:                  "holds counts of experts, which do not say which experts a token chose",
	} {
		if code, _, stderr := evenkeel(t, strings.Fields(request)...); code != exitRequest || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit %d, %q, want %q", request, code, stderr, want)
		}
	}
}

// Steps without a choice are no part of the mean over steps, and sizes whose whole batches hold none are left out.
func TestInspectCountsAtTheEnd(t *testing.T) {
	file := npzOf(t, numbers("counts", []int{6, 1, 4}, append(make([]int32, 20), 4, 2, 1, 1)...))
	_, out, _ := evenkeel(t, "inspect", "--json", "--set", "topk=2", file)
	var x inspection
	if err := json.Unmarshal([]byte(out), &x); err != nil {
		t.Fatal(err)
	}
	if all := x.ByLayer[0].all(); len(all.Batches) != 2 || all.Batches[0].MaxVio != 1 || all.Batches[1].MaxVio != 1 {
		t.Errorf("batches are %+v", all.Batches)
	}
	for _, b := range x.Balances {
		if b.Name == "max_vio" && (b.Batches == nil || *b.Batches != 1) {
			t.Errorf("max_vio over steps is %v", b.Batches)
		}
	}
}
