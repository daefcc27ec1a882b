package strategies

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"evenkeel/internal/vec"
	"evenkeel/moe"
)

var update = flag.Bool("update", false, "rewrite testdata/revisions.txt")

// revisionBatch is batch number n of a stream that is the same everywhere: numbers are made of uniform ones without rounding that
// could differ.
func revisionBatch(layer moe.Layer, n uint64) *moe.Batch {
	r := rand.NewPCG(2024, n)
	uniform := func() float32 { return float32(r.Uint64()>>48) / (1 << 16) }
	b := moe.NewBatch(layer, 170)
	b.Resize(170)
	b.Sequences = []moe.Span{{From: 0, To: 50}, {From: 50, To: 90}, {From: 90, To: 170}}
	b.SplitMicroBatches(3)
	for i := range b.Tiles {
		t := &b.Tiles[i]
		t.Key, t.Training = r.Uint64(), true
		for e := range layer.Experts {
			for l := range t.Tokens {
				z := uniform() + uniform() + uniform() - 1.5 + float32(e%5)/4
				if layer.Score == moe.Softmax {
					z *= 2
				}
				t.Z[e*vec.Lanes+l] = z
			}
		}
		for l := range t.Tokens {
			t.Token[l], t.Domain[l] = int32(r.Uint64()%40), int32(r.Uint64()%3)
		}
	}
	return b
}

// work is everything that a strategy computes on a few batches: scores, choices, drops, losses, gradients and its state.
func work(h io.Writer, s moe.Strategy, layer moe.Layer) error {
	put := func(values any) {
		if err := binary.Write(h, binary.LittleEndian, values); err != nil {
			panic(err) // of a type that has no size
		}
	}
	traits := s.Traits()
	fmt.Fprintf(h, "%+v %v %v %v\n", traits.Gate, traits.Score, traits.Freeze, traits.Idle)
	for step := range 4 {
		b := revisionBatch(layer, uint64(step))
		n := layer.Experts * vec.Lanes
		scores, z := make([]float32, len(b.Tiles)*n), logitsOf(b)
		noise := make([]float32, len(z)) // of a second router
		for i, v := range z {
			noise[i] = (v - 0.5) / 4
		}
		a := moe.NewAssignment(layer, b.Tokens, traits)
		w := moe.NewScratch(layer)
		second := func(i int) {
			if traits.Noise {
				w.Noise, w.NoiseGrad = noise[i*n:(i+1)*n], make([]float32, n)
			}
		}
		for i := range b.Tiles {
			second(i)
			s.Score(&b.Tiles[i], scores[i*n:(i+1)*n], z[i*n:(i+1)*n], w)
			s.Route(&b.Tiles[i], scores[i*n:(i+1)*n], w, a.Tile(i), a.FreshTile(i))
		}
		if err := s.RouteBatch(b, scores, a); err != nil {
			return err
		}
		put(scores)
		put(a.Mask)
		put(a.Dropped)
		put(a.Fresh)
		var chosen, fresh, wanted moe.Counts
		chosen.Count(b, a.Mask)
		o := &moe.Outcome{Step: step, Batch: b, Scores: scores, Logits: z, Assigned: a, Chosen: &chosen, Fresh: &fresh, Wanted: &chosen}
		if traits.Noise {
			o.Noise = noise
		}
		if traits.Fresh {
			fresh.Count(b, a.Fresh)
		}
		if traits.Drops {
			wanted.Count(b, a.Dropped)
			wanted.Add(&chosen)
			o.Wanted = &wanted
		}
		if traits.Loss {
			s.PrepareLoss(o)
		}
		if traits.Weights {
			weights, g := make([]float32, layer.Experts*8), make([]float32, layer.Experts*8)
			copy(weights, z)
			put(math.Float64bits(s.AddWeightGradient(weights, g)))
			put(g)
		}
		for i := range b.Tiles {
			second(i)
			g := make([]float32, n)
			for j := range g {
				g[j] = z[i*n+j] / 1024
			}
			put(math.Float64bits(s.Backward(b, i, scores[i*n:(i+1)*n], z[i*n:(i+1)*n], g, w)))
			put(g)
			put(w.NoiseGrad)
		}
		s.Update(o)
		put(s.Bias())
	}
	return nil
}

// variants are a preset with its defaults, and with each value of a knob that has words, so that what they choose is pinned down too.
func variants(t *testing.T, p *Preset) (specs []Spec) {
	t.Helper()
	spec, err := p.spec()
	if err != nil {
		t.Fatal(err)
	}
	specs = append(specs, spec)
	for i := range p.Knobs {
		for _, word := range p.Knobs[i].Options {
			if word == spec.Values[p.Knobs[i].Name] {
				continue
			}
			s, err := spec.With(p.Knobs[i].Name, word)
			if err != nil {
				t.Fatal(err)
			}
			specs = append(specs, s)
		}
	}
	return specs
}

// digest is that of all that a preset does on every layer on which it can be built.
func digest(t *testing.T, p *Preset) string {
	t.Helper()
	h := sha256.New()
	built := 0
	for _, layer := range []moe.Layer{layer16, layerV3, {Experts: 16, TopK: 1, Groups: 1, GroupsKept: 1}, {Experts: 16, TopK: 2, Groups: 1, GroupsKept: 1, Score: moe.Softmax}} {
		if layer.Gate.Scale == 0 {
			layer.Gate = moe.Gate{Normalised: true, Scale: 1}
		}
		for _, spec := range variants(t, p) {
			s, err := spec.Build(layer)
			if err != nil {
				continue
			}
			built++
			if err := work(h, s, layer); err != nil {
				t.Fatalf("%s: %v", spec, err)
			}
		}
	}
	if built == 0 {
		t.Fatalf("%s can be built on no layer", p.Name)
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}

// Stored results are named by a preset's revision, so what a preset computes may not change without it: testdata/revisions.txt holds
// the revision of each and a hash of what it does on a few batches.
func TestRevisionsCountWhatChanges(t *testing.T) {
	file := filepath.Join("testdata", "revisions.txt")
	text, err := os.ReadFile(file)
	if err != nil && !*update {
		t.Fatal(err)
	}
	type known struct {
		revision int
		digest   string
	}
	stored := map[string]known{}
	for line := range strings.Lines(string(text)) {
		var name string
		var k known
		if _, err := fmt.Sscan(line, &name, &k.revision, &k.digest); err != nil {
			t.Fatalf("%s: %q: %v", file, line, err)
		}
		stored[name] = k
	}
	var renewed strings.Builder
	for _, p := range Presets() {
		now, was := known{p.Revision, digest(t, p)}, stored[p.Name]
		fmt.Fprintf(&renewed, "%s %d %s\n", p.Name, now.revision, now.digest)
		_, there := stored[p.Name]
		switch {
		case there && now.digest != was.digest && now.revision <= was.revision:
			t.Errorf("%s computes something else than it did at revision %d: raise the Revision of the preset, or of the part that changed, and run with -update", p.Name, was.revision)
		case now != was && !*update:
			t.Errorf("%s has revision %d and %s, and %s has %d and %q: run with -update", p.Name, now.revision, now.digest, file, was.revision, was.digest)
		}
		delete(stored, p.Name)
	}
	for name := range stored {
		if !*update {
			t.Errorf("%s has %s, which is no preset: run with -update", file, name)
		}
	}
	if *update && !t.Failed() {
		if err := os.WriteFile(file, []byte(renewed.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// A strategy that is made of parts is as new as they are.
func TestFilesInheritTheRevisionsOfTheirParts(t *testing.T) {
	text := []byte("name: both\nparts: [loss-free, {aux-loss: {coeff: 1e-3}}]\n")
	before, err := Define("both.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	old := lossFree.Revision
	defer func() { lossFree.Revision = old }()
	lossFree.Revision++
	after, err := Define("both.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	if want := lossFree.Revision + auxLoss.Revision; after.Revision != want || after.Revision == before.Revision {
		t.Errorf("revision %d, before %d, want %d", after.Revision, before.Revision, want)
	}
}
