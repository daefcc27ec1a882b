package scenarios

import (
	"fmt"
	"math"

	"evenkeel/internal/rng"
	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// Event changes the world of a synthetic stream at a step. Kind decides which of the other keys it has:
//
//	shift        shares            the domain mix changes at once and for good
//	drift        until, degrees    every centroid turns toward a new direction, evenly over the steps to until
//	burst        until, share      a share of the sequences are one and the same hot sequence
//	period       until, period, shares   the mix swings to shares and back once each period
//	new-domain   share, name       documents of a domain that was never seen take a share of the stream
//	popularity                     the experts' popularity is redrawn: the common direction and the offsets
type Event struct {
	At      int       `json:"at" range:"0 100000000 (step)"`
	Kind    string    `json:"kind"`
	Until   int       `json:"until,omitempty" range:"0 100000000 (step)"`
	Shares  []float64 `json:"shares,omitempty"`
	Share   float64   `json:"share,omitempty" range:"0.000001 1 of the sequences or documents"`
	Degrees float64   `json:"degrees,omitempty" range:"0.001 180 degrees"`
	Period  int       `json:"period,omitempty" range:"0 100000000 steps"`
	Name    string    `json:"name,omitempty"`
}

// The kinds of event.
const (
	shift      = "shift"
	drift      = "drift"
	burst      = "burst"
	period     = "period"
	newDomain  = "new-domain"
	popularity = "popularity"
)

// eventKeys lists the kinds of event in order and the keys that each needs beside at and kind.
var eventKeys = []struct {
	kind string
	keys []string
}{
	{shift, []string{"shares"}},
	{drift, []string{"until", "degrees"}},
	{burst, []string{"until", "share"}},
	{period, []string{"until", "period", "shares"}},
	{newDomain, []string{"share", "name"}},
	{popularity, nil},
}

// mark is what a picture shows of the event.
func (e *Event) mark() moe.Mark {
	label := e.Kind
	switch e.Kind {
	case shift:
		label = "domain mix shifts"
	case drift:
		label = fmt.Sprintf("centroids drift by %g° until step %d", e.Degrees, e.Until)
	case burst:
		label = fmt.Sprintf("hot sequence until step %d", e.Until)
	case period:
		label = fmt.Sprintf("mix swings every %d steps", e.Period)
	case newDomain:
		label = "new domain " + e.Name
	case popularity:
		label = "popularity redrawn"
	}
	return moe.Mark{Step: e.At, Label: label}
}

// sharesAt appends the shares of the domains at a step to into: those of the file as events left them.
func (s *Scenario) sharesAt(step int, into []float64) []float64 {
	shares := into
	for _, d := range s.Synthetic.Domains {
		shares = append(shares, d.Share)
	}
	for i := range s.Events {
		e := &s.Events[i]
		active := step >= e.At
		switch e.Kind {
		case shift:
			if active {
				copy(shares, e.Shares)
			}
		case period:
			if active && step < e.Until {
				turn := 2 * math.Pi * float64(step-e.At) / float64(e.Period)
				w := (1 - vec.Cos64(turn)) / 2
				for j, p := range e.Shares {
					shares[j] += float64(w * (p - shares[j]))
				}
			}
		case newDomain:
			share := 0.0
			if active {
				share = e.Share
			}
			for j := range shares {
				shares[j] *= 1 - share
			}
			shares = append(shares, share)
		}
	}
	return shares
}

// activeBurst returns the burst that holds at a step, or nil.
func (s *Scenario) activeBurst(step int) *Event {
	for i := range s.Events {
		if e := &s.Events[i]; e.Kind == burst && step >= e.At && step < e.Until {
			return e
		}
	}
	return nil
}

// popularityAt counts how often popularity has been redrawn before or at a step.
func (s *Scenario) popularityAt(step int) (n int) {
	for _, e := range s.Events {
		if e.Kind == popularity && step >= e.At {
			n++
		}
	}
	return n
}

// centroidsAt returns the centroids at a step: c·cos θ + c′·sin θ for each drift, with c′ a fresh direction and θ growing
// evenly to its end. Without a drift these are the centroids given.
func (s *Scenario) centroidsAt(step int, world uint64, start []float32, d int) []float32 {
	c := start
	for i, e := range s.Events {
		if e.Kind != drift || step <= e.At {
			continue
		}
		progress := min(1, float64(step-e.At)/float64(e.Until-e.At))
		angle := e.Degrees * progress * math.Pi / 180
		cos, sin := float32(vec.Cos64(angle)), float32(vec.Cos64(angle-math.Pi/2))
		to := make([]float32, padded(len(start)))
		vec.Normals(to, rng.Key(world, rng.Event, uint64(i), drawCentroids))
		turned := make([]float32, len(start))
		for k := range turned {
			turned[k] = float32(cos*c[k]) + float32(sin*to[k])
		}
		c = turned
	}
	return c
}
