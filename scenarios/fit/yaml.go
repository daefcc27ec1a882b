package fit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
)

// YAML is the fitted scenario as a file: what it was fitted to and how well it fits as comments, then its keys.
func (r *Result) YAML() []byte {
	var b bytes.Buffer
	comment := func(format string, args ...any) {
		for _, line := range wrapped(fmt.Sprintf(format, args...), 118) {
			fmt.Fprintf(&b, "# %s\n", line)
		}
	}
	comment("A synthetic stream fitted by `evenkeel fit` to %s.", r.about())
	for _, x := range r.Sources {
		comment("%s, layer %d, SHA-256 %s", fileName(x), x.Layer, x.SHA256)
	}
	comment("Fitted to %d tokens in %s; judged by %d tokens in %s that were held back.", r.Tokens, plural(r.Documents, "document"), r.HeldTokens, plural(r.HeldDocuments, "document"))
	table := func(title string, figures []Figure) {
		fmt.Fprintf(&b, "#\n# %-32s %9s %9s   %s\n", title, "real", "synthetic", "95 % of "+r.Spread())
		for _, f := range figures {
			fmt.Fprintf(&b, "# %-32s %9.4g %9.4g   %.4g to %.4g\n", f.Label, f.Real, f.Synthetic, f.Low, f.High)
		}
	}
	table("fitted half", r.Moments)
	table("held-back half", r.Goodness)
	list := func(title string, lines []string) {
		if len(lines) == 0 {
			return
		}
		b.WriteString("#\n")
		comment("%s", title)
		for _, l := range lines {
			comment("- %s", l)
		}
	}
	list("Not reproduced:", r.Findings)
	list("Not told by the trace, and kept:", r.Kept)
	list("Notes:", r.Notes)
	b.Write(r.keys())
	return b.Bytes()
}

// about names the traces in words.
func (r *Result) about() string {
	var names []string
	for _, x := range r.Sources {
		names = append(names, fmt.Sprintf("layer %d of %s", x.Layer, fileName(x)))
	}
	return strings.Join(names, " and ")
}

func fileName(x Source) string { return strings.TrimPrefix(filepath.Base(x.File), "embedded:") }

// keys are the keys of the fitted scenario, as YAML.
func (r *Result) keys() []byte {
	s, y := r.Scenario, r.Scenario.Synthetic
	var b bytes.Buffer
	fmt.Fprintf(&b, "name: %s\nabout: %s\n\n", quoted(s.Name), quoted(s.About))
	fmt.Fprintf(&b, "experts: %d\ntopk: %d\n", s.Experts, s.TopK)
	if s.Groups > 1 {
		fmt.Fprintf(&b, "groups: %d\ngroups_kept: %d\n", s.Groups, s.GroupsKept)
	}
	fmt.Fprintf(&b, "score: %s\ngate: %s\ngate_scale: %g\nwidth: %d\n\n", s.Score, s.Gate, s.GateScale, s.Width)
	if s.WorldSeed != 0 {
		fmt.Fprintf(&b, "world_seed: %d # the nearest of %d worlds; without this key every seed draws its own\n", s.WorldSeed, r.Nearest)
	}
	fmt.Fprintf(&b, "tokens: %d\nsequence_length: %d\nmicro_batches: %d\nranks: %d\n\n", s.Tokens, s.SequenceLength, s.MicroBatches, s.Ranks)
	fmt.Fprintf(&b, "synthetic:\n  logit_scale: %g\n  offset_spread: %g\n  common_energy: %g\n", y.LogitScale, y.OffsetSpread, y.CommonEnergy)
	fmt.Fprintf(&b, "  energy:\n    type: %g\n    domain: %g\n    sequence: %g\n    noise: %g\n", y.Energy.Type, y.Energy.Domain, y.Energy.Sequence, y.Energy.Noise)
	fmt.Fprintf(&b, "  vocabulary: %d\n  zipf: %g\n  domain_tilt: %g\n  domains:\n", y.Vocabulary, y.Zipf, y.DomainTilt)
	for _, d := range y.Domains {
		fmt.Fprintf(&b, "    - {name: %s, share: %g}\n", quoted(d.Name), d.Share)
	}
	return b.Bytes()
}

// quoted is a string as YAML reads it back, bare where nothing in it could mean something else.
func quoted(s string) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	if s != "" && strings.Contains(letters, s[:1]) && strings.Trim(s, letters+"0123456789-") == "" {
		switch strings.ToLower(s) {
		case "y", "n", "yes", "no", "on", "off", "true", "false", "null":
		default:
			return s
		}
	}
	text, _ := json.Marshal(s) // a string always has a JSON form, which is YAML
	return string(text)
}

// wrapped breaks a sentence into lines of at most so many characters.
func wrapped(text string, width int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len([]rune(line))+1+len([]rune(word)) > width {
			lines = append(lines, line)
			line = "  "
		}
		if strings.TrimSpace(line) != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
