package fleet

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"evenkeel/sweep"
)

// Options of a sweep.
type Options struct {
	Workers     int // of this process, beside those that join; negative: one for each processor
	Replicas    int // servers of a cluster that keep the stream: 1, 3 or 5; 0 is 1
	AckWait     time.Duration
	UnitTimeout time.Duration
	MaxDeliver  int                   // attempts at a unit
	Program     string                // revision of this program: no other may compute a cell
	Private     bool                  // nobody else reaches the servers, so that nobody need be asked
	Progress    func(done, total int) // cells
	Log         func(string)          // what a person should know; nil: nothing

	compute compute
	looks   time.Duration // between looks at what is left
}

// Check says which values are out of range. Those that are 0 are the defaults.
func (o Options) Check() error {
	switch {
	case o.AckWait != 0 && (o.AckWait < leastTime || o.AckWait > mostAckWait):
		return fmt.Errorf("--ack-wait is %s: it must be %s to %s", o.AckWait, leastTime, mostAckWait)
	case o.UnitTimeout != 0 && (o.UnitTimeout < leastTime || o.UnitTimeout > mostUnitTimeout):
		return fmt.Errorf("--unit-timeout is %s: it must be %s to %s", o.UnitTimeout, leastTime, mostUnitTimeout)
	case o.MaxDeliver < 0 || o.MaxDeliver > 1000:
		return fmt.Errorf("--max-deliver is %d: it must be 1 to 1000", o.MaxDeliver)
	}
	return nil
}

// Outcome is what a sweep came to.
type Outcome struct {
	Cells       int      `json:"cells"`       // of the plan
	Ran         int      `json:"ran"`         // of those, now
	Redelivered int      `json:"redelivered"` // results of tasks that had been given out before
	Garbage     int      `json:"garbage"`     // results that were none
	Dead        []Letter `json:"dead"`        // units that were given up
	Refused     []string `json:"refused"`     // workers that were not let in, and why
}

// coordinator is a sweep in the process that holds its folder.
type coordinator struct {
	o     Options
	card  card
	nc    *nats.Conn
	js    jetstream.JetStream
	p     *sweep.Plan
	store *sweep.Store
	wire  *sweep.Wire
	units []sweep.Unit
	begin time.Time
	nonce string // of what this process publishes again
	fresh bool   // nobody works at the plan yet

	queue atomic.Pointer[queue]

	mu        sync.Mutex
	out       Outcome
	open      map[int]bool // units that lack cells and are not given up
	done      int          // cells
	published bool         // every task, once
	again     map[int]bool // tasks to publish again
	count     int          // of such publications
	tries     map[int]int  // that came to nothing
	reasons   map[int]string
	dead      map[int]Letter
	refused   map[string]string
	idle      map[int]bool // units that were left over at the last look
}

// queue is what the servers keep of a sweep. It is replaced whole when they lost it, while others still look at the old one.
type queue struct {
	stream         jetstream.Stream
	tasks, results jetstream.Consumer
	objects        jetstream.ObjectStore
}

// Run runs what the store lacks of a plan on all workers that take part, and returns when every unit is stored or given up. It may
// be stopped in any way and called again, with the same servers or others: the store decides what is done. When ctx ends, the error
// is ctx's.
func Run(ctx context.Context, nc *nats.Conn, p *sweep.Plan, s *sweep.Store, o Options) (Outcome, error) {
	c, err := newCoordinator(nc, p, s, o)
	if err != nil {
		return Outcome{}, err
	}
	if len(c.open) > 0 {
		err = c.run(ctx)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, unit := range slices.Sorted(maps.Keys(c.dead)) {
		c.out.Dead = append(c.out.Dead, c.dead[unit])
	}
	for _, name := range slices.Sorted(maps.Keys(c.refused)) {
		c.out.Refused = append(c.out.Refused, name+": "+c.refused[name])
	}
	return c.out, err
}

func newCoordinator(nc *nats.Conn, p *sweep.Plan, s *sweep.Store, o Options) (*coordinator, error) {
	o.AckWait, o.UnitTimeout, o.MaxDeliver = cmp.Or(o.AckWait, AckWait), cmp.Or(o.UnitTimeout, UnitTimeout), cmp.Or(o.MaxDeliver, MaxDeliver)
	if err := o.Check(); err != nil {
		return nil, err
	}
	o.Replicas, o.looks = cmp.Or(o.Replicas, 1), cmp.Or(o.looks, time.Second)
	if o.Log == nil {
		o.Log = func(string) {}
	}
	if o.Progress == nil {
		o.Progress = func(int, int) {}
	}
	c := &coordinator{o: o, nc: nc, p: p, store: s, units: p.Units(), begin: time.Now(), open: map[int]bool{}, again: map[int]bool{}, tries: map[int]int{},
		reasons: map[int]string{}, dead: map[int]Letter{}, refused: map[string]string{}, idle: map[int]bool{}}
	var err error
	if c.wire, err = sweep.NewWire(p); err != nil {
		return nil, err
	}
	var nonce [6]byte
	rand.Read(nonce[:]) // never fails
	c.nonce = hex.EncodeToString(nonce[:])
	c.out.Cells, c.done = p.Cells(), p.Cells()
	for i, u := range c.units {
		if missing := len(s.Missing(u)); missing > 0 {
			c.open[i] = true
			c.done -= missing
		}
	}
	c.card = card{Plan: p.Hash(), Format: sweep.Format, Program: o.Program, Fingerprint: c.wire.Fingerprint(), Units: len(c.units), Cells: p.Cells(),
		AckWait: o.AckWait.Milliseconds(), UnitTimeout: o.UnitTimeout.Milliseconds(), MaxDeliver: o.MaxDeliver}
	return c, nil
}

func (c *coordinator) run(ctx context.Context) (err error) {
	if err := c.attach(); err != nil {
		return err
	}
	if err := c.alone(); err != nil {
		return err
	}
	if err := c.set(ctx); err != nil {
		return explain(err)
	}
	subs, err := c.listen()
	defer func() {
		for _, sub := range subs {
			sub.Unsubscribe()
		}
	}()
	if err != nil {
		return err
	}
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	var group sync.WaitGroup
	failures := make([]error, 2)
	group.Go(func() {
		if failures[0] = c.publishAll(inner); failures[0] != nil {
			cancel()
		}
	})
	if c.o.Workers != 0 {
		group.Go(func() {
			if failures[1] = Work(inner, c.nc, WorkOptions{Workers: c.o.Workers, Program: c.o.Program, Log: c.o.Log, plan: c.card.Plan, compute: c.o.compute}); failures[1] != nil {
				cancel()
			}
		})
	}
	if err = c.gather(inner); err == nil {
		err = c.clear(ctx)
	}
	cancel()
	group.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for _, f := range failures {
		if f != nil && !errors.Is(f, context.Canceled) && (err == nil || errors.Is(err, context.Canceled)) {
			err = f
		}
	}
	return explain(err)
}

// attach prepares the connection. An acknowledgement that was lost, as when a leader steps down, is not waited for.
func (c *coordinator) attach() (err error) {
	c.js, err = jetstream.New(c.nc, jetstream.WithPublishAsyncMaxPending(2*window), jetstream.WithPublishAsyncTimeout(5*time.Second))
	return err
}

// explain says what to do about errors of the servers that will stay.
func explain(err error) error {
	var api *jetstream.APIError
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return fmt.Errorf("the servers do not offer JetStream to this account: start them with it (nats-server -js), or leave out --nats-url and use the embedded one: %w", err)
	case errors.As(err, &api) && (api.ErrorCode == noReplicas || api.ErrorCode == noPeers):
		return fmt.Errorf("the servers cannot keep so many copies: give --replicas 1, or a cluster of at least as many servers (%w)", api)
	}
	return err
}

// alone makes sure that no other coordinator runs the same plan into another folder, and finds out whether anybody works at it.
func (c *coordinator) alone() error {
	c.fresh = true
	if c.o.Private {
		return nil
	}
	reports, err := ask(c.nc, 300*time.Millisecond)
	if err != nil {
		return err
	}
	for _, r := range reports {
		if r.Worker != nil && slices.Contains(r.Worker.Plans, c.card.Plan) {
			c.fresh = false
		}
		if r.Sweep != nil && r.Sweep.Plan == c.card.Plan {
			return fmt.Errorf("the plan %s is being run with these servers already, by %s: %w", c.card.Plan, r.Sweep.Host, ErrInUse)
		}
	}
	return nil
}

// set makes the stream and what belongs to it, or takes what an earlier run of the plan left.
func (c *coordinator) set(ctx context.Context) error {
	plan, name := c.card.Plan, stream(c.card.Plan)
	text := c.p.Encode()
	q := new(queue)
	if err := again(ctx, func(ctx context.Context) (err error) {
		q.objects, err = c.js.CreateOrUpdateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: name, Description: "plan of a sweep of evenkeel", Replicas: c.o.Replicas})
		return err
	}); err != nil {
		return err
	}
	if err := storeObject(ctx, q.objects, planObject, text); err != nil {
		return err
	}
	err := again(ctx, func(ctx context.Context) (err error) {
		defer func() {
			if errors.Is(err, jetstream.ErrStreamNotFound) {
				err = fmt.Errorf("the stream is not there yet: %v", err) // which another attempt may find
			}
		}()
		if err = c.withdraw(ctx); err != nil {
			return err
		}
		if q.stream, err = c.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
			Name: name, Description: "tasks and results of a sweep of evenkeel", Subjects: []string{subject(plan, taskKind, "*"), subject(plan, resultKind, "*"), subject(plan, deadKind, "*")},
			Retention: jetstream.WorkQueuePolicy, Storage: jetstream.FileStorage, Replicas: c.o.Replicas, Duplicates: 10 * time.Minute,
			Discard: jetstream.DiscardNew, DiscardNewPerSubject: true, MaxMsgsPerSubject: 1, Metadata: map[string]string{cardKey: string(encode(c.card))},
		}); err != nil {
			return err
		}
		if err = q.stream.Purge(ctx, jetstream.WithPurgeSubject(subject(plan, deadKind, "*"))); err != nil {
			return err
		}
		if q.results, err = c.js.CreateOrUpdateConsumer(ctx, name, jetstream.ConsumerConfig{Durable: storer, AckPolicy: jetstream.AckExplicitPolicy,
			AckWait: 30 * time.Second, MaxDeliver: -1, FilterSubject: subject(plan, resultKind, "*")}); err != nil {
			return err
		}
		if c.fresh { // attempts that an interruption ended do not count
			if err = c.js.DeleteConsumer(ctx, name, takers); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
				return err
			}
		}
		q.tasks, err = c.js.CreateOrUpdateConsumer(ctx, name, jetstream.ConsumerConfig{Durable: takers, AckPolicy: jetstream.AckExplicitPolicy,
			AckWait: c.o.AckWait, MaxDeliver: c.o.MaxDeliver, MaxAckPending: -1, MaxWaiting: 1 << 14, FilterSubject: subject(plan, taskKind, "*")})
		return err
	})
	if err == nil {
		c.queue.Store(q)
	}
	return err
}

// withdraw takes away what another build left: workers of this one would refuse the tasks, and this process the results, until their
// units are given up.
func (c *coordinator) withdraw(ctx context.Context) error {
	left, err := c.js.Stream(ctx, stream(c.card.Plan))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	if old, err := decodeCard(left.CachedInfo().Config.Metadata[cardKey]); err == nil && old.Program == printable(c.card.Program) {
		return nil
	}
	return errors.Join(left.Purge(ctx, jetstream.WithPurgeSubject(subject(c.card.Plan, taskKind, "*"))), left.Purge(ctx, jetstream.WithPurgeSubject(subject(c.card.Plan, resultKind, "*"))))
}

// listen answers questions, and hears what workers remark and which tasks the servers give out no more.
func (c *coordinator) listen() (subs []*nats.Subscription, err error) {
	add := func(subject string, f func(*nats.Msg)) {
		sub, failed := c.nc.Subscribe(subject, f)
		if failed != nil {
			err = failed
			return
		}
		subs = append(subs, sub)
	}
	add(statusAsked, func(m *nats.Msg) { m.Respond(encode(report{Sweep: c.report()})) })
	add(subject(c.card.Plan, noteKind, "*"), func(m *nats.Msg) {
		if n, err := decodeNote(m.Data); err == nil && n.Plan == c.card.Plan {
			c.heard(n)
		}
	})
	add("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES."+stream(c.card.Plan)+"."+takers, func(m *nats.Msg) {
		var advisory struct {
			Sequence uint64 `json:"stream_seq"`
		}
		if json.Unmarshal(m.Data, &advisory) == nil {
			go c.exhausted(advisory.Sequence)
		}
	})
	return subs, err
}

// mostRefused bounds the memory of who was not let in.
const mostRefused = 1000

func (c *coordinator) heard(n note) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n.Unit < 0 {
		if c.refused[n.Worker] == "" && len(c.refused) < mostRefused {
			c.refused[n.Worker] = n.Reason
			c.o.Log(n.Worker + " was not let in: " + n.Reason)
		}
		return
	}
	if c.open[n.Unit] {
		c.reasons[n.Unit] = n.Reason
	}
}

// window is how many publications are under way at once.
const window = 256

// publishAll publishes the tasks of all open units, in order, but for those of which the stream has a task or a result already.
func (c *coordinator) publishAll(ctx context.Context) error {
	there := map[int]bool{}
	for _, kind := range []string{taskKind, resultKind} { // in this order: a result is there before its task goes
		if err := again(ctx, func(ctx context.Context) error {
			info, err := c.queue.Load().stream.Info(ctx, jetstream.WithSubjectFilter(subject(c.card.Plan, kind, "*")))
			if err != nil {
				return err
			}
			for s := range info.State.Subjects {
				if unit, err := strconv.Atoi(s[strings.LastIndexByte(s, '.')+1:]); err == nil {
					there[unit] = true
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	c.mu.Lock()
	list := slices.DeleteFunc(slices.Sorted(maps.Keys(c.open)), func(unit int) bool { return there[unit] })
	c.mu.Unlock()
	for chunk := range slices.Chunk(list, window) {
		futures := make([]jetstream.PubAckFuture, len(chunk))
		for i, unit := range chunk {
			futures[i], _ = c.js.PublishMsgAsync(c.task(unit, ""))
		}
		for i, unit := range chunk {
			if futures[i] != nil {
				select {
				case ack := <-futures[i].Ok():
					if !ack.Duplicate {
						continue
					}
				case err := <-futures[i].Err():
					if exists(err) {
						continue
					}
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			// Not acknowledged, or known from an earlier run and perhaps no longer there.
			if err := c.publish(ctx, unit); err != nil {
				return err
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.published = true
	return nil
}

// task is the message of a unit. What is published again has a suffix, so that it does not count as a duplicate.
func (c *coordinator) task(unit int, suffix string) *nats.Msg {
	m := nats.NewMsg(subject(c.card.Plan, taskKind, strconv.Itoa(unit)))
	m.Data = encode(task{c.card.Plan, unit, sweep.Format, c.o.Program})
	sum := sha256.Sum256([]byte(c.card.Plan + "/" + strconv.Itoa(unit) + suffix))
	m.Header.Set(jetstream.MsgIDHeader, hex.EncodeToString(sum[:16]))
	return m
}

// publish publishes the task of a unit unless it is there.
func (c *coordinator) publish(ctx context.Context, unit int) error {
	c.mu.Lock()
	c.count++
	m := c.task(unit, fmt.Sprint("/", c.nonce, "/", c.count))
	c.mu.Unlock()
	return again(ctx, func(ctx context.Context) error {
		_, err := c.js.PublishMsg(ctx, m)
		if exists(err) {
			return nil
		}
		return err
	})
}

// gather stores results until no unit is open.
func (c *coordinator) gather(ctx context.Context) error {
	heard, looked := time.Now(), time.Now()
	for c.left() > 0 {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		list := take(c.queue.Load().results, c.o.looks, mostStored)
		if err := c.keep(ctx, list); err != nil {
			return err
		}
		if len(list) > 0 {
			heard = time.Now()
		}
		if len(list) == 0 || time.Since(looked) > c.o.looks {
			looked = time.Now()
			err := c.look(ctx)
			switch {
			case err == nil:
				heard = looked
			case final(err) && !errors.Is(err, jetstream.ErrStreamNotFound) && !errors.Is(err, jetstream.ErrConsumerNotFound):
				return err
			case ctx.Err() == nil && time.Since(heard) > patience:
				return errors.Join(ErrAway, err)
			case ctx.Err() == nil && final(err): // somebody removed the stream, or a server came back without it
				if err := c.set(ctx); err != nil {
					return err
				}
				if err := c.publishAll(ctx); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (c *coordinator) left() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}

// mostStored results share one flush of the disk.
const mostStored = 32

// keep puts results into the store, and tells the server so when the disk has them.
func (c *coordinator) keep(ctx context.Context, list []jetstream.Msg) error {
	if len(list) == 0 {
		return nil
	}
	var used []string
	for _, msg := range list {
		unit, object, err := c.put(ctx, msg)
		if object != "" {
			used = append(used, object)
		}
		var refused *garbage
		switch {
		case errors.As(err, &refused):
			c.spoiled(unit, refused.Error())
		case err != nil:
			return err
		}
	}
	if err := c.store.Sync(); err != nil {
		return err
	}
	for _, msg := range list {
		msg.Ack() // where it is lost, the result comes again and is stored already
	}
	for _, object := range used {
		c.queue.Load().objects.Delete(ctx, object)
	}
	c.o.Progress(c.done, c.out.Cells)
	return nil
}

// garbage is a result that is none.
type garbage struct{ error }

// put stores one result.
func (c *coordinator) put(ctx context.Context, msg jetstream.Msg) (unit int, object string, err error) {
	unit, bad := strconv.Atoi(msg.Subject()[strings.LastIndexByte(msg.Subject(), '.')+1:])
	if bad != nil || unit < 0 || unit >= len(c.units) {
		return -1, "", &garbage{fmt.Errorf("a result came for %s, which is no unit", printable(msg.Subject()))}
	}
	h, lines, err := decodeResult(msg.Data())
	switch {
	case err != nil:
		return unit, "", &garbage{err}
	case h.Plan != c.card.Plan || h.Unit != unit:
		return unit, "", &garbage{fmt.Errorf("%s sent the result of another unit", h.Worker)}
	case h.Program != c.o.Program:
		return unit, "", &garbage{fmt.Errorf("%s is evenkeel-fleet %s, and this is %s: figures of two programs are not mixed", h.Worker, h.Program, c.o.Program)}
	}
	if h.Object != "" {
		if !strings.HasPrefix(h.Object, fmt.Sprint(resultKind, "-", unit, "-")) {
			return unit, "", &garbage{fmt.Errorf("%s sent object %s, which is no result of the unit", h.Worker, printable(h.Object))}
		}
		if lines, err = fetchObject(ctx, c.queue.Load().objects, h.Object, maxResult); err != nil {
			if !final(err) {
				return unit, "", err
			}
			return unit, h.Object, &garbage{fmt.Errorf("%s sent an object that cannot be had: %w", h.Worker, err)}
		}
	}
	cells := c.p.Of(c.units[unit])
	records, err := c.wire.DecodeRecords(cells, lines)
	if err != nil {
		return unit, h.Object, &garbage{fmt.Errorf("%s sent no result: %w", h.Worker, err)}
	}
	missing := len(c.store.Missing(c.units[unit]))
	if err := c.store.Put(cells, records); err != nil {
		return unit, h.Object, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if missing > 0 && h.Attempt > 1 {
		c.out.Redelivered++
	}
	c.out.Ran, c.done = c.out.Ran+missing, c.done+missing
	delete(c.open, unit)
	delete(c.dead, unit)
	delete(c.again, unit)
	return unit, h.Object, nil
}

// spoiled counts an attempt at a unit that came to nothing. The task is published again, or the unit given up.
func (c *coordinator) spoiled(unit int, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.Garbage++
	c.failed(unit, reason)
}

// failed enters an attempt that came to nothing. The lock is held.
func (c *coordinator) failed(unit int, reason string) {
	c.o.Log(fmt.Sprintf("unit %d: %s", unit, reason))
	if c.open[unit] {
		c.tries[unit]++
		c.reasons[unit] = reason
		c.again[unit] = true
	}
}

// look publishes again what came to nothing, gives up what has used its attempts, and finds tasks that were lost.
func (c *coordinator) look(ctx context.Context) error {
	within, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c.mu.Lock()
	var up, repeat []int
	for unit := range c.again {
		if c.tries[unit] >= c.o.MaxDeliver {
			up = append(up, unit)
		} else {
			repeat = append(repeat, unit)
		}
	}
	clear(c.again)
	published := c.published
	c.mu.Unlock()
	for _, unit := range up {
		if err := c.giveUp(ctx, unit); err != nil {
			return err
		}
	}
	for _, unit := range repeat {
		if err := c.publish(ctx, unit); err != nil {
			return err
		}
	}
	for _, consumer := range []jetstream.Consumer{c.queue.Load().tasks, c.queue.Load().results} {
		info, err := consumer.Info(within)
		if err != nil {
			return err
		}
		if !published || len(repeat) > 0 || info.NumPending+uint64(info.NumAckPending) > 0 {
			c.idle = map[int]bool{}
			return nil
		}
	}
	return c.sort(within)
}

// sort looks, where nothing is under way any more, at what is left: tasks that the server gives out no more, and units without a task.
// What is so at two looks is acted upon.
func (c *coordinator) sort(ctx context.Context) error {
	info, err := c.queue.Load().stream.Info(ctx, jetstream.WithSubjectFilter(subject(c.card.Plan, taskKind, "*")))
	if err != nil {
		return err
	}
	c.mu.Lock()
	open := slices.Sorted(maps.Keys(c.open))
	c.mu.Unlock()
	idle := map[int]bool{}
	for _, unit := range open {
		idle[unit] = true
		if !c.idle[unit] {
			continue
		}
		if info.State.Subjects[subject(c.card.Plan, taskKind, strconv.Itoa(unit))] > 0 {
			if err := c.giveUp(ctx, unit); err != nil {
				return err
			}
			continue
		}
		c.mu.Lock()
		c.failed(unit, "its task was taken and no result came")
		c.mu.Unlock()
	}
	c.idle = idle
	return nil
}

// exhausted gives up the unit of a task that the server gives out no more.
func (c *coordinator) exhausted(sequence uint64) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	msg, err := c.queue.Load().stream.GetMsg(ctx, sequence)
	if err != nil {
		return // look will find it
	}
	if t, err := decodeTask(msg.Data); err == nil && t.Plan == c.card.Plan && t.Unit < len(c.units) {
		c.giveUp(ctx, t.Unit)
	}
}

// giveUp sends the letter of a unit that has used its attempts and takes its task away. A result that comes later is still stored.
func (c *coordinator) giveUp(ctx context.Context, unit int) error {
	c.mu.Lock()
	if !c.open[unit] {
		c.mu.Unlock()
		return nil
	}
	letter := Letter{Plan: c.card.Plan, Unit: unit, Reason: cmp.Or(c.reasons[unit], "the workers that took it did not answer any more")}
	c.mu.Unlock()
	for _, cell := range c.p.Of(c.units[unit]) {
		letter.Cells = append(letter.Cells, cell.Index)
	}
	if err := again(ctx, func(ctx context.Context) error {
		_, err := c.js.Publish(ctx, subject(c.card.Plan, deadKind, strconv.Itoa(unit)), encode(letter))
		if exists(err) {
			return nil
		}
		return err
	}); err != nil {
		return err
	}
	c.queue.Load().stream.Purge(ctx, jetstream.WithPurgeSubject(subject(c.card.Plan, taskKind, strconv.Itoa(unit))))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[unit] {
		delete(c.open, unit)
		c.dead[unit] = letter
		c.o.Log(fmt.Sprintf("unit %d is given up after %d attempts: %s", unit, c.o.MaxDeliver, letter.Reason))
	}
	return nil
}

// clear removes from the servers what nobody needs any more. The letters of units that were given up stay until the plan is run again.
func (c *coordinator) clear(ctx context.Context) error {
	c.mu.Lock()
	letters := len(c.dead)
	c.mu.Unlock()
	if letters > 0 {
		return nil
	}
	err := again(ctx, func(ctx context.Context) error {
		return errors.Join(absent(c.js.DeleteStream(ctx, stream(c.card.Plan))), absent(c.js.DeleteObjectStore(ctx, stream(c.card.Plan))))
	})
	if err != nil && ctx.Err() == nil {
		c.o.Log("the sweep is complete, and its stream is left on the servers: " + err.Error())
	}
	return ctx.Err()
}

func absent(err error) error {
	if errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrBucketNotFound) {
		return nil
	}
	return err
}

func (c *coordinator) report() *SweepReport {
	host, _ := os.Hostname()
	c.mu.Lock()
	defer c.mu.Unlock()
	r := &SweepReport{Plan: c.card.Plan, Host: printable(host), Program: c.o.Program, Scenario: c.p.Scenario.Name, Cells: c.out.Cells, Done: c.done, Ran: c.out.Ran,
		Seconds: time.Since(c.begin).Seconds(), Redelivered: c.out.Redelivered, Garbage: c.out.Garbage, Refused: len(c.refused), Dead: slices.Sorted(maps.Keys(c.dead))}
	if len(r.Dead) > 1000 {
		r.Dead = r.Dead[:1000]
	}
	return r
}
