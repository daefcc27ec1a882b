package sweep

import (
	"fmt"
	"path/filepath"
)

// Gather copies into a folder what others hold of the same plan.
func Gather(dir string, p *Plan, others []string) error {
	if len(others) == 0 {
		return nil
	}
	names, err := p.names()
	if err != nil {
		return err
	}
	known := map[Name]bool{}
	for _, u := range p.Units() {
		for _, c := range p.Of(u) {
			known[names.of(c)] = true
		}
	}
	s, err := Open(dir, p, Shard{})
	if err != nil {
		return err
	}
	for _, other := range others {
		q, err := ReadPlan(filepath.Join(other, PlanFile))
		if err == nil && q.Hash() != p.Hash() {
			err = fmt.Errorf("%s holds the results of another plan (%s, not %s)", other, q.Hash(), p.Hash())
		}
		if err == nil {
			_, err = scan(other, func(n Name, record []byte, _ place) error {
				if !known[n] {
					return nil
				}
				return s.append(n, record)
			})
		}
		if err != nil {
			s.Close()
			return err
		}
	}
	return s.Close()
}
