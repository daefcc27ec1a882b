// Package k8stest decodes the manifests that package cluster writes into the types of Kubernetes. It is a module of its own so that
// those are no dependency of Evenkeel; what it reads are the golden files, which the tests of package cluster hold to what is written.
package k8stest

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"
)

// documents decodes the documents of a file strictly: an unknown field or one that is given twice is an error.
func documents(t *testing.T, name string) (list []any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range bytes.Split(text, []byte("\n---\n")) {
		var kind struct {
			Kind string `json:"kind"`
		}
		if err := yaml.Unmarshal(part, &kind); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var into any = new(batch.Job)
		if kind.Kind == "ConfigMap" {
			into = new(core.ConfigMap)
		}
		if err := yaml.UnmarshalStrict(part, into, yaml.DisallowUnknownFields); err != nil {
			t.Fatalf("%s: %s: %v", name, kind.Kind, err)
		}
		list = append(list, into)
	}
	return list
}

// job checks what both Jobs have in common and returns the container.
func job(t *testing.T, j *batch.Job) core.Container {
	t.Helper()
	if j.APIVersion != "batch/v1" || j.Kind != "Job" {
		t.Fatalf("%s %s is no Job", j.APIVersion, j.Kind)
	}
	if wrong := validation.IsDNS1123Label(j.Name + "-99999"); wrong != nil { // of a pod
		t.Errorf("name %q: %v", j.Name, wrong)
	}
	pod := j.Spec.Template.Spec
	if pod.RestartPolicy != core.RestartPolicyNever || len(pod.Containers) != 1 {
		t.Fatalf("restarts %s, %d containers", pod.RestartPolicy, len(pod.Containers))
	}
	c := pod.Containers[0]
	if claim := pod.Volumes[0].PersistentVolumeClaim; claim == nil || claim.ClaimName != "sweeps" {
		t.Errorf("claim %v", claim)
	}
	for _, m := range c.VolumeMounts {
		found := false
		for _, v := range pod.Volumes {
			found = found || v.Name == m.Name
		}
		if !found {
			t.Errorf("there is no volume %s", m.Name)
		}
	}
	if want := resource.MustParse("2Gi"); c.Resources.Limits.Memory().Cmp(want) != 0 || c.Resources.Requests.Memory().Cmp(want) != 0 {
		t.Errorf("memory %v", c.Resources)
	}
	return c
}

// rules checks a failure policy: a lost node does not count, exit code 2 ends with wrong, 75 counts.
func rules(t *testing.T, j *batch.Job, c core.Container, wrong batch.PodFailurePolicyAction) {
	t.Helper()
	rules := j.Spec.PodFailurePolicy.Rules
	if len(rules) != 3 {
		t.Fatalf("%d rules", len(rules))
	}
	if on := rules[0].OnPodConditions; rules[0].Action != batch.PodFailurePolicyActionIgnore || len(on) != 1 || on[0].Type != core.DisruptionTarget || on[0].Status != core.ConditionTrue {
		t.Errorf("%+v", rules[0])
	}
	for i, want := range map[int]struct {
		action batch.PodFailurePolicyAction
		code   int32
	}{1: {wrong, 2}, 2: {batch.PodFailurePolicyActionCount, 75}} {
		on := rules[i].OnExitCodes
		if rules[i].Action != want.action || on == nil || on.ContainerName == nil || *on.ContainerName != c.Name || on.Operator != batch.PodFailurePolicyOnExitCodesOpIn ||
			len(on.Values) != 1 || on.Values[0] != want.code {
			t.Errorf("%+v, want %+v", rules[i], want)
		}
	}
}

func TestShards(t *testing.T) {
	list := documents(t, "shards.yaml")
	plan, j := list[0].(*core.ConfigMap), list[1].(*batch.Job)
	if plan.APIVersion != "v1" || !json.Valid([]byte(plan.Data["plan.json"])) || !strings.Contains(plan.Data["plan.json"], "a: 'b' #") || !strings.Contains(plan.Data["plan.json"], "\u00e9\\u0085\u0085") {
		t.Errorf("the plan arrives as %q", plan.Data["plan.json"])
	}
	c := job(t, j)
	s := j.Spec
	if *s.CompletionMode != batch.IndexedCompletion || *s.Completions != 40 || *s.Parallelism != 16 || *s.BackoffLimitPerIndex != 5 || *s.MaxFailedIndexes != 4 {
		t.Errorf("%+v", s)
	}
	rules(t, j, c, batch.PodFailurePolicyActionFailIndex)
	if volume := s.Template.Spec.Volumes[1].ConfigMap; volume == nil || volume.Name != plan.Name {
		t.Errorf("the volume of the plan is %+v", volume)
	}
	if c.Resources.Requests.Cpu().Cmp(resource.MustParse("2")) != 0 {
		t.Errorf("processors %v", c.Resources.Requests.Cpu())
	}
	// A shell makes the last index the last shard.
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "evenkeel"), []byte("#!/bin/sh\necho \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	run := exec.Command(c.Command[0], c.Command[1:]...)
	run.Env = []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "JOB_COMPLETION_INDEX=39"}
	out, err := run.Output()
	if want := "run --plan /plan/plan.json --shard 40/40 --out /sweeps/evenkeel-rates --workers 2\n"; err != nil || string(out) != want {
		t.Errorf("runs %q, want %q, %v", out, want, err)
	}
}

// A plan that no ConfigMap holds is read from the volume.
func TestLargePlan(t *testing.T) {
	list := documents(t, "large-shards.yaml")
	if len(list) != 1 {
		t.Fatalf("%d documents", len(list))
	}
	j := list[0].(*batch.Job)
	c := job(t, j)
	rules(t, j, c, batch.PodFailurePolicyActionFailIndex)
	if len(c.VolumeMounts) != 1 || !strings.Contains(c.Command[2], "--plan /sweeps/0/plan.json") || *j.Spec.Parallelism != 1 {
		t.Errorf("%+v", c)
	}
}

func TestCollect(t *testing.T) {
	j := documents(t, "collect.yaml")[0].(*batch.Job)
	c := job(t, j)
	rules(t, j, c, batch.PodFailurePolicyActionFailJob)
	if got := strings.Join(c.Command, " "); got != "evenkeel collect /sweeps/evenkeel-rates" {
		t.Error(got)
	}
}
