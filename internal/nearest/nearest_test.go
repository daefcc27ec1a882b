package nearest

import "testing"

func TestName(t *testing.T) {
	known := []string{"experts", "topk", "tokens", "groups", "groups_kept", "loss-free", "aux-loss"}
	for name, want := range map[string]string{
		"expert": "experts", "epxerts": "experts", "top_k": "topk", "group": "groups", "groupskept": "groups_kept",
		"lossfree": "loss-free", "auxloss": "aux-loss", "zzzzzzzzz": "", "": "",
	} {
		if got := Name(name, known); got != want {
			t.Errorf("nearest to %q is %q, want %q", name, got, want)
		}
	}
}
