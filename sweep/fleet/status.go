package fleet

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Status is what the servers, the coordinators and the workers say of what goes on.
type Status struct {
	Sweeps  []SweepReport  `json:"sweeps"`
	Workers []WorkerReport `json:"workers"`
}

// SweepReport is how far a sweep is.
type SweepReport struct {
	Plan        string  `json:"plan"`
	Host        string  `json:"host"` // of the coordinator; empty: none answers
	Program     string  `json:"program"`
	Scenario    string  `json:"scenario"`
	Cells       int     `json:"cells"`
	Done        int     `json:"done"` // cells in the store
	Ran         int     `json:"ran"`  // of those, by this coordinator
	Seconds     float64 `json:"seconds"`
	Redelivered int     `json:"redelivered"`
	Garbage     int     `json:"garbage"`
	Refused     int     `json:"refused"`
	Dead        []int   `json:"dead"` // units, at most 1000

	// What the servers say.
	Waiting int `json:"waiting"` // units that nobody has taken
	Running int `json:"running"` // units that a worker holds
	Results int `json:"results"` // units that are computed and not stored
}

// WorkerReport is what a worker does.
type WorkerReport struct {
	Name      string   `json:"name"`
	Program   string   `json:"program"`
	Slots     int      `json:"slots"`
	Running   int      `json:"running"`
	Abandoned int      `json:"abandoned"` // units that did not heed their end
	Cells     int      `json:"cells"`     // done
	Seconds   float64  `json:"seconds"`
	Plans     []string `json:"plans"`
	Refused   int      `json:"refused"` // sweeps that it may not run
}

// report answers a question for the status.
type report struct {
	Sweep  *SweepReport  `json:"sweep,omitempty"`
	Worker *WorkerReport `json:"worker,omitempty"`
}

func decodeReport(text []byte) (report, error) {
	r, err := decode[report](text, maxReport)
	if s := r.Sweep; s != nil {
		s.Plan, s.Host, s.Program, s.Scenario = printable(s.Plan), printable(s.Host), printable(s.Program), printable(s.Scenario)
	}
	if w := r.Worker; w != nil {
		w.Name, w.Program = printable(w.Name), printable(w.Program)
		for i := range w.Plans {
			w.Plans[i] = printable(w.Plans[i])
		}
	}
	return r, err
}

// mostReports is how many answers are read.
const mostReports = 10000

// ask asks coordinators and workers what they do, and takes what answers in time.
func ask(nc *nats.Conn, within time.Duration) (list []report, err error) {
	inbox := nc.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	defer sub.Unsubscribe()
	if err := nc.PublishRequest(statusAsked, inbox, nil); err != nil {
		return nil, err
	}
	for end := time.Now().Add(within); len(list) < mostReports; {
		msg, err := sub.NextMsg(time.Until(end))
		if err != nil {
			return list, nil // the time is over, or nobody is there
		}
		if r, err := decodeReport(msg.Data); err == nil {
			list = append(list, r)
		}
	}
	return list, nil
}

// Ask returns the status of all sweeps and workers.
func Ask(ctx context.Context, nc *nats.Conn) (*Status, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	reports, err := ask(nc, 400*time.Millisecond)
	if err != nil {
		return nil, err
	}
	s := &Status{}
	sweeps := map[string]*SweepReport{}
	for _, r := range reports {
		if r.Sweep != nil {
			sweeps[r.Sweep.Plan] = r.Sweep
		}
		if r.Worker != nil {
			s.Workers = append(s.Workers, *r.Worker)
		}
	}
	if err := again(ctx, func(ctx context.Context) error {
		list := js.ListStreams(ctx, jetstream.WithStreamListSubject(root+".>"))
		for info := range list.Info() {
			c, err := decodeCard(info.Config.Metadata[cardKey])
			if err != nil || stream(c.Plan) != info.Config.Name {
				continue
			}
			r := sweeps[c.Plan]
			if r == nil {
				r = &SweepReport{Plan: c.Plan, Program: c.Program, Cells: c.Cells}
				sweeps[c.Plan] = r
			}
			if tasks, err := js.Consumer(ctx, info.Config.Name, takers); err == nil {
				i := tasks.CachedInfo()
				r.Waiting, r.Running = int(i.NumPending), i.NumAckPending
			}
			if results, err := js.Consumer(ctx, info.Config.Name, storer); err == nil {
				i := results.CachedInfo()
				r.Results = int(i.NumPending) + i.NumAckPending
			}
		}
		return list.Err()
	}); err != nil {
		return nil, err
	}
	for _, r := range sweeps {
		s.Sweeps = append(s.Sweeps, *r)
	}
	slices.SortFunc(s.Sweeps, func(a, b SweepReport) int { return cmp.Compare(a.Plan, b.Plan) })
	slices.SortFunc(s.Workers, func(a, b WorkerReport) int { return cmp.Compare(a.Name, b.Name) })
	return s, nil
}

func (w *worker) report() *WorkerReport {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := &WorkerReport{Name: w.name, Program: w.Program, Slots: w.WorkOptions.Workers, Running: int(w.running.Load()), Abandoned: int(w.abandoned.Load()),
		Cells: int(w.cells.Load()), Seconds: time.Since(w.begin).Seconds(), Refused: len(w.refused)}
	for _, s := range w.order[:min(len(w.order), 100)] {
		r.Plans = append(r.Plans, s.Plan)
	}
	return r
}
