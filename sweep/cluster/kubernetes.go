package cluster

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"text/template"

	"evenkeel/internal/whole"
)

// Kubernetes is an Indexed Job of the shards of a sweep, and a Job that collects. Dir is a folder here; in the cluster the sweep
// has one of the Job's name in a volume.
type Kubernetes struct {
	Sweep
	Name       string // of the Jobs; empty: after the folder
	Image      string // with evenkeel on its PATH, and a shell
	Claim      string // PersistentVolumeClaim of the volume
	Memory     string // of a shard, as Kubernetes writes quantities
	Concurrent int    // shards at once; 0: all
	Plan       []byte // plan.json
}

// maxConfigured is the largest plan that a ConfigMap holds: its limit is 1 MiB. A larger one is expected in the volume.
const maxConfigured = 1_000_000

// MaxIndexes is how many shards Kubernetes retries each by itself.
const MaxIndexes = 100_000

//go:embed kubernetes.yaml
var manifestText string

var manifests = template.Must(template.New("").Funcs(template.FuncMap{"quote": strconv.QuoteToASCII}).Parse(manifestText))

var (
	label    = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)
	domain   = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
	quantity = regexp.MustCompile(`^[1-9][0-9]*([kMGTP]|[KMGTP]i)?$`)
	image    = regexp.MustCompile(`^[a-zA-Z0-9][-a-zA-Z0-9._:/@]*$`)
)

// Title is what the Jobs are called, and the folder in the volume.
func (k Kubernetes) Title() string {
	if k.Name != "" {
		return k.Name
	}
	return k.name()
}

// Check says what Kubernetes would refuse.
func (k Kubernetes) Check() error {
	switch {
	case k.Image == "":
		return errors.New("--image is missing: name an image with evenkeel on its PATH, such as registry.example/evenkeel:1")
	case !image.MatchString(k.Image):
		return fmt.Errorf("--image %q: want the name of an image, such as registry.example/evenkeel:1", k.Image)
	case k.Claim == "":
		return errors.New("--claim is missing: name the PersistentVolumeClaim that shall hold the results")
	case len(k.Claim) > 253 || !domain.MatchString(k.Claim):
		return fmt.Errorf("--claim %q: want the name of a PersistentVolumeClaim, such as sweeps or team.sweeps", k.Claim)
	case len(k.Title()) > 50 || !label.MatchString(k.Title()):
		return fmt.Errorf("--name %q: want at most 50 lower-case letters, digits and hyphens", k.Name)
	case !quantity.MatchString(k.Memory):
		return fmt.Errorf("--memory %q: want a quantity such as 2Gi", k.Memory)
	case k.Shards > MaxIndexes:
		return fmt.Errorf("%d shards are too many: Kubernetes takes %d", k.Shards, MaxIndexes)
	}
	return nil
}

// Manifests are the Job of the shards, with the plan where that is small enough, and the Job that collects.
func (k Kubernetes) Manifests() (shards, collect []byte, err error) {
	k.Name = k.Title()
	if err := k.Check(); err != nil {
		return nil, nil, err
	}
	out := "/sweeps/" + k.Name
	data := struct {
		Kubernetes
		Parallel, MaxFailed, Retries int
		Text, File, Out              string
	}{k, k.Shards, max(1, k.Shards/10), restarts, string(k.Plan), "/plan/plan.json", out}
	if k.Concurrent > 0 {
		data.Parallel = min(k.Concurrent, k.Shards)
	}
	if !k.Configured() {
		data.Text, data.File = "", out+"/plan.json"
	}
	var b [2]bytes.Buffer
	for i, name := range []string{"shards", "collect"} {
		if err := manifests.ExecuteTemplate(&b[i], name, data); err != nil {
			return nil, nil, err
		}
	}
	return b[0].Bytes(), b[1].Bytes(), nil
}

// Configured reports whether the plan is part of the manifest. Otherwise it has to be copied into the volume first.
func (k Kubernetes) Configured() bool { return len(k.Plan) <= maxConfigured }

// Write writes the manifests into the folder and returns their paths.
func (k Kubernetes) Write() (shards, collect string, err error) {
	first, second, err := k.Manifests()
	if err != nil {
		return "", "", err
	}
	dir := filepath.Join(k.Dir, "kubernetes")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", "", whole.Located(err)
	}
	shards, collect = filepath.Join(dir, "shards.yaml"), filepath.Join(dir, "collect.yaml")
	if err := whole.WriteBytes(shards, first); err != nil {
		return "", "", err
	}
	return shards, collect, whole.WriteBytes(collect, second)
}
