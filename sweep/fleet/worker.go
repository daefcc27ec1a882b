package fleet

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"evenkeel/sweep"
)

// WorkOptions of a process that takes tasks.
type WorkOptions struct {
	Workers int             // units that it runs at once; 0: one for each processor
	Program string          // revision of this program
	Drain   <-chan struct{} // closed: take nothing more, finish what runs, and return; nil: never
	Log     func(string)    // what a person should know; nil: nothing

	plan    string // the only one that it serves; empty: all
	compute compute
	grace   time.Duration // after its time limit a unit is left alone
}

// RefusedError is that this program may not run a sweep of another one.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return e.Reason }

// worker is one process. Its slots run a unit each.
type worker struct {
	WorkOptions
	ctx  context.Context // of Work
	nc   *nats.Conn
	js   jetstream.JetStream
	name string

	mu      sync.Mutex
	serving map[string]*serving // by plan
	order   []*serving
	refused map[card]refusal
	changed chan struct{} // closed when serving changes

	begin     time.Time
	running   atomic.Int64
	cells     atomic.Int64 // done
	abandoned atomic.Int64 // units that did not heed their end
}

// serving is a sweep that the worker takes part in.
type serving struct {
	card
	wire    *sweep.Wire
	p       *sweep.Plan
	units   []sweep.Unit
	compute compute
	tasks   jetstream.Consumer
	objects jetstream.ObjectStore
	typical atomic.Int64 // nanoseconds that the last units took
	absent  int          // looks in a row that did not find it
	ctx     context.Context
	cancel  context.CancelFunc // when it is over
}

// looking is how often a worker asks which sweeps there are. One that so many answers in a row do not name is over: servers that
// elect a leader leave out some.
const (
	looking = time.Second
	gone    = 3
)

// Work takes tasks of every sweep that the servers have, until ctx ends or it is drained. If there are sweeps, and none that this
// program may run, the error is a RefusedError that names both programs. What ctx interrupts is given back at once.
func Work(ctx context.Context, nc *nats.Conn, o WorkOptions) error {
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	o.grace = cmp.Or(o.grace, 5*time.Second)
	host, _ := os.Hostname()
	var id [3]byte
	rand.Read(id[:])
	w := &worker{WorkOptions: o, ctx: ctx, nc: nc, js: js, name: printable(fmt.Sprintf("%s-%d-%s", cmp.Or(host, "worker"), os.Getpid(), hex.EncodeToString(id[:]))),
		serving: map[string]*serving{}, refused: map[card]refusal{}, changed: make(chan struct{}), begin: time.Now()}
	if o.Log == nil {
		w.Log = func(string) {}
	}
	sub, err := nc.Subscribe(statusAsked, func(m *nats.Msg) { m.Respond(encode(report{Worker: w.report()})) })
	if err != nil {
		return err
	}
	defer sub.Unsubscribe()
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-o.Drain: // nil: never
		case <-stop.Done():
		}
		cancel()
	}()
	var group sync.WaitGroup
	for i := range o.Workers {
		group.Go(func() { w.slot(stop, i) })
	}
	for stop.Err() == nil {
		err := w.look(stop)
		if nc.IsClosed() && stop.Err() == nil { // credentials that are no longer taken
			err = errors.Join(ErrAway, nc.LastError())
		}
		if err != nil {
			cancel()
			group.Wait()
			return err
		}
		select {
		case <-stop.Done():
		case <-time.After(looking):
		}
	}
	group.Wait()
	return ctx.Err()
}

// look finds out which sweeps there are. Servers that are away are waited for.
func (w *worker) look(ctx context.Context) error {
	within, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	list := w.js.ListStreams(within, jetstream.WithStreamListSubject(root+".>"))
	there := map[string]bool{}
	var refused *RefusedError
	for info := range list.Info() {
		text, ok := info.Config.Metadata[cardKey]
		if !ok {
			continue
		}
		plan, ok := strings.CutPrefix(info.Config.Name, streamPrefix)
		if !ok || !isHash(plan) || w.plan != "" && plan != w.plan {
			continue
		}
		c, err := decodeCard(text)
		if err == nil && c.Plan != plan {
			err = errors.New("it is of another plan")
		}
		if err != nil {
			refused = &RefusedError{fmt.Sprintf("sweep %s was begun by another evenkeel-fleet than this, %s, which cannot read what it asks for (%s): start the worker from the same build", plan, w.Program, err)}
			w.refuse(card{Plan: plan}, refused)
			continue
		}
		there[plan] = true
		if before := w.refusedLately(c); before != nil {
			refused = before
			continue
		}
		if err := w.join(ctx, c); errors.As(err, &refused) {
			w.refuse(c, refused)
		}
	}
	if list.Err() != nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for plan, s := range w.serving {
		if s.absent++; there[plan] {
			s.absent = 0
		}
		if s.absent == gone {
			delete(w.serving, plan)
			s.cancel()
			w.list()
		}
	}
	if refused != nil && len(w.serving) == 0 {
		return refused
	}
	return nil
}

// list puts what is served in an order, and wakes the slots. The lock is held.
func (w *worker) list() {
	w.order = w.order[:0:0]
	for _, s := range w.serving {
		w.order = append(w.order, s)
	}
	close(w.changed)
	w.changed = make(chan struct{})
}

// refusal is why a worker takes no part in a sweep, and when it last looked.
type refusal struct {
	err *RefusedError
	at  time.Time
}

// lookAgain is after how long a sweep that was refused is looked at again: the file of a trace may have come, and plans are large.
const lookAgain = 30 * time.Second

// refusedLately is why a sweep was refused, or nil where it is time to look at it.
func (w *worker) refusedLately(c card) *RefusedError {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r, ok := w.refused[c]; ok && time.Since(r.at) < lookAgain {
		return r.err
	}
	return nil
}

// refuse tells people and the coordinator, once. A sweep that it served, and that came back with another card, it serves no more.
func (w *worker) refuse(c card, e *RefusedError) {
	w.mu.Lock()
	_, known := w.refused[c]
	w.refused[c] = refusal{e, time.Now()}
	if s := w.serving[c.Plan]; s != nil {
		delete(w.serving, c.Plan)
		s.cancel()
		w.list()
	}
	w.mu.Unlock()
	if !known {
		w.note(c.Plan, -1, e.Reason)
		w.nc.FlushTimeout(time.Second)
		w.Log(e.Reason)
	}
}

func (w *worker) note(plan string, unit int, reason string) {
	w.nc.Publish(subject(plan, noteKind, strconv.Itoa(max(0, unit))), encode(note{plan, unit, w.name, printable(reason)}))
}

// join makes sure that this program means the same by a plan as who published it, and takes part.
func (w *worker) join(ctx context.Context, c card) error {
	w.mu.Lock()
	s := w.serving[c.Plan]
	w.mu.Unlock()
	if s != nil && s.card == c {
		return nil
	}
	if c.Format != sweep.Format || c.Program != w.Program {
		return &RefusedError{fmt.Sprintf("sweep %s was begun by evenkeel-fleet %s with format %d, and this worker is %s with format %d: figures of two programs are not mixed; start the worker from the same build",
			c.Plan, c.Program, c.Format, w.Program, sweep.Format)}
	}
	old := s
	s = &serving{card: c}
	if err := again(ctx, func(ctx context.Context) (err error) {
		if s.objects, err = w.js.ObjectStore(ctx, stream(c.Plan)); err == nil {
			s.tasks, err = w.js.Consumer(ctx, stream(c.Plan), takers)
		}
		return err
	}); err != nil {
		return err // it is over, or not yet there
	}
	text, err := fetchObject(ctx, s.objects, planObject, maxPlan)
	if err != nil {
		return err
	}
	if s.p, err = sweep.DecodePlan(text); err != nil {
		return &RefusedError{fmt.Sprintf("sweep %s: what the servers hold of it %s", c.Plan, err)}
	}
	if s.p.Hash() != c.Plan {
		return &RefusedError{fmt.Sprintf("sweep %s: the plan that the servers hold is another, %s", c.Plan, s.p.Hash())}
	}
	if s.wire, err = sweep.NewWire(s.p); err != nil {
		return err
	}
	if got := s.wire.Fingerprint(); got != c.Fingerprint {
		return &RefusedError{fmt.Sprintf("sweep %s names its cells by %s, and this worker, %s, by %s: revisions of strategies differ; start the worker from the same build",
			c.Plan, printable(c.Fingerprint), w.Program, got)}
	}
	s.units = s.p.Units()
	computer := sweep.NewComputer(s.p)
	if err := computer.Reachable(); err != nil {
		return &RefusedError{fmt.Sprintf("sweep %s cannot run on this machine: %s", c.Plan, err)}
	}
	s.compute = w.compute
	if s.compute == nil {
		s.compute = computer.Compute
	}
	if old != nil { // the same sweep by a new card: what runs goes on, and ends with it
		s.ctx, s.cancel = old.ctx, old.cancel
	} else {
		s.ctx, s.cancel = context.WithCancel(w.ctx)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.serving[c.Plan] = s
	w.list()
	return nil
}

// next is the sweep whose turn it is for a slot, or none.
func (w *worker) next(turn int) (s *serving, several bool, changed <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.order) > 0 {
		s = w.order[turn%len(w.order)]
	}
	return s, len(w.order) > 1, w.changed
}

// Bounds of what a slot takes at once: several tasks where units are so short that asking for each would take longer.
const (
	shortBatch = 50 * time.Millisecond
	mostTaken  = 32

	mostSending = 4 // results of a slot on their way
)

// slot runs one unit at a time, and takes no more when stop ends.
func (w *worker) slot(stop context.Context, turn int) {
	sending := make(chan struct{}, mostSending)
	defer func() {
		for range mostSending {
			sending <- struct{}{} // waits for all
		}
	}()
	for ; stop.Err() == nil; turn++ {
		s, several, changed := w.next(turn)
		if s == nil {
			select {
			case <-changed:
			case <-stop.Done():
			}
			continue
		}
		wait := time.Second
		if several {
			wait = 200 * time.Millisecond
		}
		most := 1
		if typical := time.Duration(s.typical.Load()); typical > 0 {
			most = int(shortBatch / typical)
		}
		list := take(s.tasks, wait, most)
		waiting := make(chan jetstream.Msg, len(list))
		for _, msg := range list {
			waiting <- msg
		}
		close(waiting)
		// Those behind a unit that turns out to be long have no heartbeat: they go back in time.
		late := time.AfterFunc(time.Duration(s.AckWait)*time.Millisecond/3, func() {
			for msg := range waiting {
				msg.Nak()
			}
		})
		for msg := range waiting {
			if s.ctx.Err() == nil {
				w.handle(s, msg, sending)
			} else {
				msg.Nak()
			}
		}
		late.Stop()
	}
}

// moment is how long a fetch of several messages may wait for the last of them.
const moment = 5 * time.Millisecond

// take waits for a message, and takes up to so many with it if they are there.
func take(c jetstream.Consumer, wait time.Duration, most int) (list []jetstream.Msg) {
	begin := time.Now()
	msg, err := c.Next(jetstream.FetchMaxWait(wait))
	if err != nil {
		time.Sleep(min(wait, 200*time.Millisecond) - min(time.Since(begin), 200*time.Millisecond)) // no leader, or over
		return nil
	}
	list = append(list, msg)
	if most = min(most, mostTaken); most > 1 {
		if batch, err := c.Fetch(most-1, jetstream.FetchMaxWait(moment)); err == nil {
			for msg := range batch.Messages() {
				list = append(list, msg)
			}
		}
	}
	return list
}

// handle runs the unit of a task and sends its result. Until that is on disk the task is held by heartbeats, whose end sends it to
// another worker.
func (w *worker) handle(s *serving, msg jetstream.Msg, sending chan struct{}) {
	ctx := s.ctx
	t, err := decodeTask(msg.Data())
	meta, bad := msg.Metadata()
	switch {
	case err == nil && bad != nil:
		err = bad
	case err == nil && (t.Plan != s.Plan || t.Unit >= len(s.units)):
		err = errors.New("it is of another plan")
	case err == nil && (t.Format != sweep.Format || t.Program != w.Program):
		err = fmt.Errorf("it is of evenkeel-fleet %s", printable(t.Program))
	}
	if err != nil {
		w.note(s.Plan, t.Unit, "a task was refused: "+err.Error())
		msg.NakWithDelay(time.Second)
		return
	}
	beating, cancel := context.WithCancel(ctx)
	go beat(beating, msg, time.Duration(s.AckWait)*time.Millisecond/3)
	begin := time.Now()
	cells := s.p.Of(s.units[t.Unit])
	w.running.Add(1)
	records, err := w.run(ctx, s, cells)
	w.running.Add(-1)
	s.typical.Store(max(int64(time.Since(begin)), s.typical.Load()/2)) // one short unit after a long one promises nothing
	sending <- struct{}{}
	go func() { // while the slot computes its next unit
		defer func() { <-sending }()
		if err == nil {
			err = w.send(ctx, s, t, meta.NumDelivered, cells, records)
		}
		cancel()
		switch {
		case ctx.Err() != nil:
			msg.Nak()
		case err != nil:
			w.note(s.Plan, t.Unit, err.Error())
			w.Log(fmt.Sprintf("unit %d of sweep %s: %s", t.Unit, s.Plan, err))
			msg.NakWithDelay(time.Duration(min(meta.NumDelivered, 60)*uint64(s.AckWait)/60) * time.Millisecond)
		default:
			msg.Ack()
			w.cells.Add(int64(len(cells)))
		}
	}()
}

func beat(ctx context.Context, msg jetstream.Msg, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			msg.InProgress()
		}
	}
}

// run computes cells within the time that a unit may take. A unit that does not heed its end is left behind, so that the slot can go on.
func (w *worker) run(ctx context.Context, s *serving, cells []sweep.Cell) ([]*sweep.Record, error) {
	limit := time.Duration(s.UnitTimeout) * time.Millisecond
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	type outcome struct {
		records []*sweep.Record
		err     error
	}
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		defer func() {
			if r := recover(); r != nil {
				o = outcome{nil, fmt.Errorf("it panicked: %v", r)}
			}
			done <- o
		}()
		o.records, o.err = s.compute(within, cells)
	}()
	var o outcome
	select {
	case o = <-done:
	case <-within.Done():
		select {
		case o = <-done:
		case <-time.After(w.grace):
			w.abandoned.Add(1)
			o.err = within.Err()
		}
	}
	if o.err != nil && errors.Is(within.Err(), context.DeadlineExceeded) {
		return nil, fmt.Errorf("it took longer than the %s that --unit-timeout allows", limit)
	}
	return o.records, o.err
}

// send publishes a result, by way of an object if it is too large for a message. A result of the unit that waits already is as good.
func (w *worker) send(ctx context.Context, s *serving, t task, delivery uint64, cells []sweep.Cell, records []*sweep.Record) error {
	lines, err := s.wire.EncodeRecords(cells, records)
	if err != nil {
		return err
	}
	if len(lines) > maxResult {
		return fmt.Errorf("the records of its %d cells have %d bytes, and at most %d can be sent: record fewer steps by --record-steps", len(cells), len(lines), maxResult)
	}
	h := header{Plan: t.Plan, Unit: t.Unit, Format: sweep.Format, Program: w.Program, Worker: w.name, Attempt: delivery}
	if int64(len(lines)) > w.nc.MaxPayload()-maxHeader-maxHeader { // headers of the message too
		h.Object = fmt.Sprintf("%s-%d-%d-%s", resultKind, t.Unit, delivery, w.name)
		if err := storeObject(ctx, s.objects, h.Object, lines); err != nil {
			return fmt.Errorf("its result cannot be sent: %w", err)
		}
		lines = nil
	}
	m := nats.NewMsg(subject(t.Plan, resultKind, strconv.Itoa(t.Unit)))
	m.Data = append(append(encode(h), '\n'), lines...)
	var id [8]byte
	rand.Read(id[:])
	m.Header.Set(jetstream.MsgIDHeader, hex.EncodeToString(id[:])) // of this attempt to send
	err = again(ctx, func(ctx context.Context) error {
		_, err := w.js.PublishMsg(ctx, m)
		if exists(err) {
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("its result cannot be sent: %w", err)
	}
	return nil
}
