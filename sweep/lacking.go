package sweep

// Lacking returns of each of n shards of a plan how many cells a folder does not hold yet.
func Lacking(dir string, p *Plan, n int) ([]int, error) {
	names, err := p.names()
	if err != nil {
		return nil, err
	}
	done := map[Name]bool{}
	if _, err := scan(dir, func(n Name, _ []byte, _ place) error {
		done[n] = true
		return nil
	}); err != nil {
		return nil, err
	}
	list := make([]int, n)
	for i, u := range p.Units() {
		for _, c := range p.Of(u) {
			if !done[names.of(c)] {
				list[i%n]++
			}
		}
	}
	return list, nil
}
