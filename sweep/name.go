package sweep

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// Name is the hash that names a cell: of the format of results, the text and the settings of the scenario, what is recorded, the
// strategy with its knobs, revision and file, and the seed. Where the file of a trace lies is no part of it, its checksum is.
type Name [16]byte

// String is the name in hexadecimal digits.
func (n Name) String() string { return hex.EncodeToString(n[:]) }

// names computes the names of a plan's cells. What cells share is hashed once.
type names struct {
	variants [][32]byte
	specs    [][32]byte
}

const traceFile = "trace.file=" // begins a setting

func (p *Plan) names() (*names, error) {
	n := &names{}
	for i := range p.Variants {
		all := slices.DeleteFunc(slices.Concat(p.Settings, p.VariantSettings(i)), func(s string) bool { return strings.HasPrefix(s, traceFile) })
		text, _ := json.Marshal([]any{Format, p.Scenario.Name, p.Scenario.YAML, all, p.Steps, p.Loads}) // plain values only
		n.variants = append(n.variants, sha256.Sum256(text))
	}
	n.specs = make([][32]byte, len(p.Specs))
	for i := range p.Specs {
		spec, err := p.spec(i)
		if err != nil {
			return nil, err
		}
		text, _ := json.Marshal([]any{spec.Full(), spec.Preset.Revision, string(spec.Preset.Source())})
		n.specs[i] = sha256.Sum256(text)
	}
	return n, nil
}

func (n *names) of(c Cell) (name Name) {
	var text [32 + 32 + 20]byte
	b := append(text[:0], n.variants[c.Variant][:]...)
	b = append(b, n.specs[c.Spec][:]...)
	b = strconv.AppendUint(b, c.Seed, 10)
	sum := sha256.Sum256(b)
	copy(name[:], sum[:])
	return name
}
