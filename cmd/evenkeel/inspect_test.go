package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"evenkeel/internal/npz"
)

// choicesOf is a trace of choices [layers][tokens][topk] alone.
func choicesOf(t *testing.T, layers, topk int, ids ...byte) string {
	return npzOf(t, npz.Array{Name: "topk_ids", DType: npz.Int8, Shape: []int{layers, len(ids) / layers / topk, topk}, Data: ids})
}

// By hand: two layers of four tokens that choose two of four experts.
func TestInspectByHand(t *testing.T) {
	file := choicesOf(t, 2, 2,
		0, 1, 0, 1, 0, 2, 3, 0, // loads 4 2 1 1
		0, 1, 2, 3, 0, 1, 2, 3) // loads 2 2 2 2
	code, out, stderr := evenkeel(t, "inspect", "--json", "--ranks", "2", "--batch", "2", file)
	if code != 0 {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	var x inspection
	if err := json.Unmarshal([]byte(out), &x); err != nil {
		t.Fatal(err)
	}
	if x.Level != "choices" || x.Layers != 2 || x.Tokens != 4 || x.Experts != 4 || x.TopK != 2 || x.Ranks != 2 || x.Batch != 2 {
		t.Errorf("found %+v", x)
	}
	near := func(what string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > 1e-12 {
			t.Errorf("%s is %v, want %v", what, got, want)
		}
	}
	near("MaxVio of layer 0", x.ByLayer[0].all().MaxVio, 1)
	near("MaxVio of layer 1", x.ByLayer[1].all().MaxVio, 0)
	near("mean MaxVio", x.Mean[0].MaxVio, 0.5)
	near("overflow at 1", x.ByLayer[0].Overflow[0], (2.0/4+1.0/4)/2) // batches 2 2 0 0 and 2 0 1 1, capacity 1
	near("vLLM", x.number(t, "vLLM", "balancedness"), (4.0+4)/(6+4)) // ranks 6 2 and 4 4
	near("TensorRT-LLM", x.number(t, "TensorRT-LLM", "imbalance ratio"), (0.5+0)/2)
	near("prime-rl", x.number(t, "prime-rl, verl", "max_vio"), 0.5)
	near("FastMoE", x.number(t, "FastMoE", "Lmax/Lmin"), (5.0/2+1)/2)
	near("median MaxVio", x.Across[0].P50, 0.5)
	if x.Across[0].Layer != 0 || x.Across[0].Highest != 1 {
		t.Errorf("the worst layer is %+v", x.Across[0])
	}
	if x.Absent["tokens"] == "" || x.Absent["domains"] == "" || x.Absent["pairs"] != "" {
		t.Errorf("absent are %v", x.Absent)
	}
	if best := x.ByLayer[1].Pairs.Strongest[0]; best.B != best.A+1 || best.Count != 2 || math.Abs(best.Ratio-3) > 1e-9 { // expected: 4 pairs among 6
		t.Errorf("the strongest pair is %+v", best)
	}
}

func TestInspectLeavesPaddingOut(t *testing.T) {
	file := choicesOf(t, 2, 2, 0, 1, 255, 255, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255)
	code, out, stderr := evenkeel(t, "inspect", file)
	if code != 0 {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	for _, want := range []string{"up to 4 tokens of a layer chose no expert", "up to 1 token of a layer chose fewer than 2"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	_, out, _ = evenkeel(t, "inspect", "--json", file)
	var x inspection
	if err := json.Unmarshal([]byte(out), &x); err != nil || len(x.ByLayer) != 1 || x.ByLayer[0].all().Tokens != 2 {
		t.Errorf("found %+v, %v", x.ByLayer, err)
	}
	if code, out, stderr := evenkeel(t, "inspect", choicesOf(t, 1, 1, 255, 255)); code != 0 || !strings.Contains(out, "up to 2 tokens of a layer") {
		t.Errorf("of padding alone: exit %d, %s%s", code, out, stderr)
	}
}

// Every line keeps within the terminal, and sections can be chosen.
func TestInspectFitsTheTerminal(t *testing.T) {
	many := make([]byte, 6*200*2)
	for i := range many {
		many[i] = byte((i*i/3 + i%2*20) % 20)
		if i%2 == 1 {
			many[i] += 20
		}
	}
	for _, width := range []int{80, 120} {
		t.Setenv("COLUMNS", strconv.Itoa(width))
		for _, args := range [][]string{{"tinymoe"}, {choicesOf(t, 6, 2, many...)}, {"--per-layer", choicesOf(t, 6, 2, many...)}} {
			code, out, stderr := evenkeel(t, append([]string{"inspect"}, args...)...)
			if code != 0 {
				t.Errorf("inspect %v: exit %d, %s", args, code, stderr)
			}
			for i, line := range strings.Split(out, "\n") {
				if n := len([]rune(line)); i > 0 && n > width && !strings.Contains(line, os.TempDir()) {
					t.Errorf("at %d columns a line has %d: %s", width, n, line)
				}
			}
		}
	}
	_, out, _ := evenkeel(t, "inspect", "tinymoe", "--sections", "tokens, domains")
	if !strings.Contains(out, "Token ids") || !strings.Contains(out, "Specialisation") || strings.Contains(out, "Overflow") {
		t.Errorf("two sections are %s", out)
	}
}

// Words for what curves show.
func TestVerdicts(t *testing.T) {
	for want, change := range map[string]func(b *batchFound){
		"noise.":                 func(b *batchFound) { b.MaxVio, b.Shuffled = 1.02*b.Floor, b.Floor },
		"that averages out.":     func(b *batchFound) { b.MaxVio, b.Shuffled = 3*b.Floor, b.Floor },
		"structure.":             func(b *batchFound) { b.MaxVio, b.Shuffled = 2, 2 },
		"both.":                  func(b *batchFound) { b.MaxVio, b.Shuffled = 0.5+2*b.Floor, 0.5+2*b.Floor },
		"neighbours add little.": func(b *batchFound) { b.MaxVio, b.Shuffled = 2, 2 },
		"Shuffled tokens are more even at every size, 1.00 instead of 2.00 in batches of 1024": func(b *batchFound) { b.MaxVio, b.Shuffled = 2, 1 },
		"averages out in larger ones": func(b *batchFound) { b.MaxVio, b.Shuffled = 2+b.Floor, 2 },
	} {
		d := domainFound{Name: "all"}
		for _, size := range []int{64, 256, 1024, 4096} {
			b := batchFound{Tokens: size, Floor: 8 / math.Sqrt(float64(size))}
			change(&b)
			d.Batches = append(d.Batches, b)
		}
		d.fit()
		if got := d.verdict("0"); !strings.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
	few := domainFound{Batches: []batchFound{{10, 1, 1, 1}}}
	if got := few.verdict("0"); !strings.Contains(got, "too few tokens") {
		t.Errorf("of one size: %q", got)
	}
	counts := domainFound{Batches: []batchFound{{Tokens: 1000, MaxVio: 1, Floor: 1}}}
	if got := counts.verdict("0"); !strings.Contains(got, "one step of counts is one size of batch") {
		t.Errorf("of counts in one step: %q", got)
	}
	even := domainFound{Batches: []batchFound{{64, 1, 1, 1}, {256, 0, 0, 0.5}}}
	if got := even.verdict("0"); !strings.Contains(got, "perfectly even") {
		t.Errorf("of even loads: %q", got)
	}
}

func TestInspectFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "report")
	code, printed, stderr := evenkeel(t, "inspect", "tinymoe", "--json", "--out", dir)
	if code != 0 {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	written, err := os.ReadFile(filepath.Join(dir, "inspect.json"))
	if err != nil || string(written) != printed {
		t.Errorf("--json and inspect.json differ: %v", err)
	}
	for _, figure := range []string{"maxvio-batch-size", "co-activation"} {
		for _, ext := range []string{".svg", ".png"} {
			if _, err := os.Stat(filepath.Join(dir, "plots", figure+ext)); err != nil {
				t.Error(err)
			}
		}
	}
}

// A router that was trained without balancing: what is known of the embedded trace.
func TestInspectEmbedded(t *testing.T) {
	_, out, _ := evenkeel(t, "inspect", "tinymoe", "--json")
	var x inspection
	if err := json.Unmarshal([]byte(out), &x); err != nil {
		t.Fatal(err)
	}
	l := x.ByLayer[0]
	if l.Domains[0].Name != "de" || l.AuxLoss == nil || !(*l.AuxLoss > 1) {
		t.Errorf("layer %+v", l)
	}
	if k := l.TokenIDs; !(*k.HeldBack > 2**k.Popular && *k.HeldBack <= *k.Favourites && *k.Popular > k.Uniform) {
		t.Errorf("token ids %+v", k)
	}
	if !(l.Pairs.Bits > 20*l.Pairs.Floor && l.Domain.Bits > 20*l.Domain.Floor) {
		t.Errorf("pairs %+v, domains %+v", l.Pairs, l.Domain)
	}
}

// By hand: one layer of counts in two steps, 4 2 1 1 and 0 2 3 3 over four experts, two per token.
func TestInspectCounts(t *testing.T) {
	file := npzOf(t, npz.Array{Name: "counts", DType: npz.Uint8, Shape: []int{2, 1, 4}, Data: []byte{4, 2, 1, 1, 0, 2, 3, 3}})
	if code, _, stderr := evenkeel(t, "inspect", file); code != exitRequest || !strings.Contains(stderr, "add --set topk=K") {
		t.Errorf("without K: exit %d, %s", code, stderr)
	}
	code, out, stderr := evenkeel(t, "inspect", "--json", "--set", "topk=2", file)
	if code != 0 {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	var x inspection
	if err := json.Unmarshal([]byte(out), &x); err != nil {
		t.Fatal(err)
	}
	all := x.ByLayer[0].all()
	if all.Tokens != 8 || all.MaxVio != 0 || len(all.Batches) != 2 || all.Batches[0].Tokens != 4 || all.Batches[0].MaxVio != (1+0.5)/2 {
		t.Errorf("found %+v", all)
	}
	if v := x.ByLayer[0].Overflow[0]; v != (2.0/8+2.0/8)/2 {
		t.Errorf("overflow %v", v)
	}
	for _, b := range x.Balances {
		if b.Name == "max_vio" && (*b.Whole != 0 || *b.Batches != 0.75) {
			t.Errorf("max_vio %v and %v", *b.Whole, *b.Batches)
		}
	}
	_, out, _ = evenkeel(t, "inspect", "--set", "topk=2", file, "--out", t.TempDir())
	for _, want := range []string{"8 tokens", "in 2 steps", "the trace holds counts", "In the steps of the counts"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
}
