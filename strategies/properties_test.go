package strategies

import (
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"

	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// layersFor are shapes on which a preset can be built; a preset that none suits fails the test.
func layersFor(t *testing.T, p *Preset) (layers []moe.Layer) {
	t.Helper()
	for _, l := range []moe.Layer{layer16, layerV3, {Experts: 16, TopK: 1, Groups: 1, GroupsKept: 1}, {Experts: 16, TopK: 2, Groups: 1, GroupsKept: 1},
		{Experts: 16, TopK: 2, Groups: 1, GroupsKept: 1, Score: moe.Softmax}} {
		spec, err := Parse(p.Name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := spec.Build(l); err == nil {
			layers = append(layers, l)
		}
	}
	if layers == nil {
		t.Fatalf("no layer suits %s", p.Name)
	}
	return layers
}

// warm moves a strategy's state by a few steps on a batch.
func warm(s moe.Strategy, b *moe.Batch, steps int) {
	for step := range steps {
		scores, a := routeAll(s, b)
		var n moe.Counts
		n.Count(b, a.Mask)
		s.Update(&moe.Outcome{Step: step, Batch: b, Scores: scores, Assigned: a, Chosen: &n})
	}
}

// chosenBy returns the experts of a token, ascending.
func chosenBy(a *moe.Assignment, token int) (list []int) {
	for e, m := range a.Tile(token / vec.Lanes) {
		if m>>(token%vec.Lanes)&1 != 0 {
			list = append(list, e)
		}
	}
	return list
}

// A causal rule gives a token the same experts whatever comes after it.
func TestCausalRulesDoNotSeeTheFuture(t *testing.T) {
	for _, p := range Presets() {
		for _, layer := range layersFor(t, p) {
			r := rand.New(rand.NewPCG(21, 4))
			b := batchOf(r, layer, 70, 30, 100)
			s := mustBuild(t, layer, p.Name)
			if !s.Traits().Causal {
				continue
			}
			warm(s, b, 3)
			_, before := routeAll(s, b)
			for _, from := range []int{1, 64, 83, 150} {
				changed := batchOf(rand.New(rand.NewPCG(21, 4)), layer, 70, 30, 100)
				for token := from; token < b.Tokens; token++ {
					for e := range layer.Experts {
						changed.Tiles[token/vec.Lanes].Z[e*vec.Lanes+token%vec.Lanes] = float32(r.NormFloat64() * 3)
					}
					changed.Tiles[token/vec.Lanes].Token[token%vec.Lanes] = int32(r.IntN(50))
				}
				_, after := routeAll(s, changed)
				for token := range from {
					if !slices.Equal(chosenBy(before, token), chosenBy(after, token)) {
						t.Fatalf("%s: token %d changes from %v to %v when tokens from %d on change", p.Name, token, chosenBy(before, token), chosenBy(after, token), from)
					}
				}
			}
		}
	}
}

// byNumber are rules that go by the number of an expert and not by its score alone, with the reason.
var byNumber = map[string]string{
	"random":       "draws experts by number",
	"round-robin":  "takes experts by number",
	"swipe":        "fills experts with room by number",
	"hash":         "tables name experts by number",
	"moge":         "groups are consecutive experts",
	"pangu-pro":    "is moge",
	"longcat":      "has longcat-bias, for which the last experts compute nothing",
	"null-experts": "the last experts compute nothing",
	"longcat-bias": "the last experts compute nothing",
	"noisy-topk":   "draws noise by number",
	"jitter":       "draws noise by number",
}

// Permuting experts permutes choices and biases: no rule favours an expert for its number, but those that say so.
func TestPermutingExpertsPermutesResults(t *testing.T) {
	for _, p := range Presets() {
		for _, layer := range layersFor(t, p) {
			if layer.Groups > 1 || byNumber[p.Name] != "" {
				continue
			}
			r := rand.New(rand.NewPCG(22, 5))
			perm := r.Perm(layer.Experts)
			s, u := mustBuild(t, layer, p.Name), mustBuild(t, layer, p.Name)
			pair := func(seed uint64) (b, turned *moe.Batch) {
				b, turned = batchOf(rand.New(rand.NewPCG(22, seed)), layer, 128, 72), batchOf(rand.New(rand.NewPCG(22, seed)), layer, 128, 72)
				for i := range b.Tiles {
					for e, to := range perm {
						copy(turned.Tiles[i].Z[to*vec.Lanes:(to+1)*vec.Lanes], b.Tiles[i].Z[e*vec.Lanes:(e+1)*vec.Lanes])
					}
				}
				return b, turned
			}
			for seed := range uint64(3) {
				b, turned := pair(seed)
				warm(s, b, 1)
				warm(u, turned, 1)
			}
			b, turned := pair(9) // prices of a rule may lie on exact ties of the batches that made them
			_, before := routeAll(s, b)
			_, after := routeAll(u, turned)
			for token := range b.Tokens {
				want := chosenBy(before, token)
				for i, e := range want {
					want[i] = perm[e]
				}
				slices.Sort(want)
				if got := chosenBy(after, token); !slices.Equal(got, want) {
					t.Fatalf("%s on %v: token %d has %v, want %v", p.Name, layer, token, got, want)
				}
			}
			for e, v := range s.Bias() {
				if got := u.Bias()[perm[e]]; got-v > 1e-6 || v-got > 1e-6 {
					t.Fatalf("%s: the bias of expert %d is %v, as %d %v", p.Name, e, v, perm[e], got)
				}
			}
		}
	}
}

// What finds no room is dropped, and nothing else is: choices and drops together are K a token.
func TestChoicesAndDropsAreWhole(t *testing.T) {
	for _, p := range Presets() {
		for _, layer := range layersFor(t, p) {
			b := batchOf(rand.New(rand.NewPCG(23, 6)), layer, 100, 57)
			s := mustBuild(t, layer, p.Name)
			traits := s.Traits()
			_, a := routeAll(s, b)
			var kept, dropped, both int
			for i, m := range a.Mask {
				kept += bits.OnesCount64(m)
				if a.Dropped != nil {
					dropped += bits.OnesCount64(a.Dropped[i])
					both += bits.OnesCount64(m & a.Dropped[i])
				}
			}
			if both > 0 {
				t.Errorf("%s both keeps and drops %d choices", p.Name, both)
			}
			if !traits.Varies && kept+dropped != b.Tokens*layer.TopK {
				t.Errorf("%s keeps %d and drops %d choices of %d", p.Name, kept, dropped, b.Tokens*layer.TopK)
			}
		}
	}
}

// A choice leaves the scores as they are, since gates are made of them: a bias is never in a gate.
func TestChoicesLeaveTheScoresAlone(t *testing.T) {
	for _, p := range Presets() {
		for _, layer := range layersFor(t, p) {
			b := batchOf(rand.New(rand.NewPCG(24, 7)), layer, 90)
			s := mustBuild(t, layer, p.Name)
			warm(s, b, 2)
			scores, a := routeAll(s, b)
			want := slices.Clone(scores)
			for i := range b.Tiles {
				n := layer.Experts * vec.Lanes
				s.Route(&b.Tiles[i], scores[i*n:(i+1)*n], moe.NewScratch(layer), a.Tile(i), a.FreshTile(i))
			}
			if err := s.RouteBatch(b, scores, a); err != nil || !slices.Equal(scores, want) {
				t.Errorf("%s changes the scores of which gates are made (%v)", p.Name, err)
			}
		}
	}
}
