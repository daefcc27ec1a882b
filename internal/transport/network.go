package transport

// network is the graph of single moves between experts. Its nodes are the E
// experts and, last, a store of extra load: an arc from an expert to the
// store raises that expert's target load from floor to floor+1, an arc back
// lowers it.
type network struct {
	nodes  int
	active int // nodes in use: without extra load the store is idle

	// cost[a*nodes+b] is the least score lost by moving one token from
	// expert a to b, and mover the token that loses it.
	cost  []int64
	mover []int32

	excess []int // load above target

	// reach[v] is the cost of the cheapest path to v from an expert with
	// excess, measured from minus that expert's price, so that
	// reach[v] + price[v] is its length in reduced costs.
	reach  []int64
	parent []int32
	open   []int32 // active nodes, the settled ones first
	found  []int32 // nodes with room, nearest first
	stale  []int32
	path   []arc
}

// arc is one move of a path.
type arc struct{ from, to, token int32 }

func (g *network) init(experts int) {
	n := experts + 1
	g.nodes = n
	g.cost = make([]int64, n*n)
	g.mover = make([]int32, n*n)
	g.excess = make([]int, n)
	g.reach = make([]int64, n)
	g.parent = make([]int32, n)
	g.open = make([]int32, 0, n)
	g.found = make([]int32, 0, n)
	g.stale = make([]int32, 0, n)
	g.path = make([]arc, 0, n)
}

func (g *network) at(a, b int) int { return a*g.nodes + b }

// balance turns the starting choice into a balanced one by successive
// cheapest paths of moves. Every step keeps the choice optimal for its loads
// and prices, so the first balanced choice is the optimum.
func (s *Solver) balance() {
	s.buildNetwork()
	for s.findPaths() {
		for _, v := range s.net.found {
			for s.tracePath(v) {
				s.movePath()
			}
		}
	}
}

// buildNetwork sets the target loads and the cost of every arc.
func (s *Solver) buildNetwork() {
	g := &s.net
	for i := range g.cost {
		g.cost[i], g.mover[i] = heldMark, -1
	}
	store := s.experts
	g.active = store + min(1, s.extra)
	g.excess[store] = -s.extra
	for e, tokens := range s.members {
		for _, t := range tokens {
			s.offer(int(t), e)
		}
		g.excess[e] = len(tokens) - s.floor
		if s.extra == 0 {
			continue
		}
		if s.price[e] > s.price[store] {
			g.cost[g.at(store, e)] = 0
			g.excess[e]--
			g.excess[store]++
		} else {
			g.cost[g.at(e, store)] = 0
		}
	}
}

// offer lowers the costs of leaving expert e by the moves of token t.
func (s *Solver) offer(t, e int) {
	g := &s.net
	row := s.row(t)
	cost := g.cost[g.at(e, 0):][:len(row)]
	mover := g.mover[g.at(e, 0):][:len(row)]
	own := row[e] + heldMark
	for f, v := range row {
		if c := own - v; c < cost[f] {
			cost[f], mover[f] = c, int32(t)
		}
	}
}

// findPaths finds the cheapest paths from experts with excess to those with
// room, lists the latter in g.found and moves the prices so that every arc of
// the paths is tight: cost = price[from] - price[to]. It reports whether
// there was any excess.
func (s *Solver) findPaths() bool {
	g := &s.net
	rooms := g.seed(s.price)
	if rooms == 0 {
		return false
	}
	var length int64
	settled := 0
	for rooms > 0 {
		k, nearest := g.nearest(s.price, settled)
		if nearest >= unreachable {
			break
		}
		a := g.open[k]
		g.open[k], g.open[settled] = g.open[settled], a
		settled++
		length = nearest
		if g.excess[a] < 0 {
			g.found = append(g.found, a)
			rooms--
		}
		g.relax(int(a), g.open[settled:])
	}
	for i, v := range g.open {
		if i < settled {
			s.price[v] = -g.reach[v]
		} else {
			s.price[v] -= length
		}
	}
	return true
}

// seed starts a search at every node with excess and returns the number of
// nodes with room.
func (g *network) seed(price []int64) int {
	g.open, g.found = g.open[:0], g.found[:0]
	rooms := 0
	for v, x := range g.excess[:g.active] {
		g.open = append(g.open, int32(v))
		g.parent[v] = -1
		g.reach[v] = heldMark
		if x > 0 {
			g.reach[v] = -price[v]
		} else if x < 0 {
			rooms++
		}
	}
	return rooms
}

// nearest returns the position in g.open, from the given one on, of the node
// with the shortest path, and its length in reduced costs.
func (g *network) nearest(price []int64, from int) (at int, length int64) {
	at, length = from, unreachable
	for i := from; i < len(g.open); i++ {
		v := g.open[i]
		if d := g.reach[v] + price[v]; d < length {
			at, length = i, d
		}
	}
	return at, length
}

// relax shortens the paths to the open nodes through node a.
func (g *network) relax(a int, open []int32) {
	cost := g.cost[g.at(a, 0):][:g.nodes]
	from := g.reach[a]
	for _, v := range open {
		if d := from + cost[v]; d < g.reach[v] {
			g.reach[v], g.parent[v] = d, int32(a)
		}
	}
}

// tracePath collects in g.path the moves that lead to node v. It reports
// false when v has no room left, the path's start no excess, or an earlier
// path has used up the last tight move of an arc.
func (s *Solver) tracePath(v int32) bool {
	g := &s.net
	if g.excess[v] >= 0 {
		return false
	}
	g.path = g.path[:0]
	for g.parent[v] >= 0 {
		u := g.parent[v]
		i := g.at(int(u), int(v))
		if g.cost[i] != s.price[u]-s.price[v] {
			return false
		}
		g.path = append(g.path, arc{u, v, g.mover[i]})
		v = u
	}
	return g.excess[v] > 0
}

// movePath carries out the moves of g.path, which runs from its end to its
// start.
func (s *Solver) movePath() {
	g := &s.net
	g.excess[g.path[0].to]++
	g.excess[g.path[len(g.path)-1].from]--
	store := int32(s.experts)
	for _, m := range g.path {
		if m.from == store || m.to == store {
			back := g.at(int(m.to), int(m.from))
			g.cost[g.at(int(m.from), int(m.to))] = heldMark
			g.cost[back] = 0
			continue
		}
		s.move(int(m.token), int(m.from), int(m.to))
	}
}

// move gives token t expert b in place of a and repairs the arcs it served or
// now serves.
func (s *Solver) move(t, a, b int) {
	g := &s.net
	row, held := s.row(t), s.held(t)
	row[a] += heldMark
	row[b] -= heldMark
	for i, e := range held {
		if int(e) == a {
			held[i] = int32(b)
		}
	}
	s.members[a] = remove(s.members[a], int32(t))
	s.members[b] = append(s.members[b], int32(t))

	g.stale = g.stale[:0]
	for f, u := range g.mover[g.at(a, 0):][:s.experts] {
		if int(u) == t {
			g.stale = append(g.stale, int32(f))
		}
	}
	s.rescan(a)
	for _, e := range held {
		if int(e) == b {
			continue
		}
		if int(g.mover[g.at(int(e), b)]) == t {
			g.stale = append(g.stale[:0], int32(b))
			s.rescan(int(e))
		}
		i := g.at(int(e), a)
		if c := row[e] + heldMark - row[a]; c < g.cost[i] {
			g.cost[i], g.mover[i] = c, int32(t)
		}
	}
	s.offer(t, b)
}

// rescan recomputes the arcs from expert e to the experts in g.stale.
func (s *Solver) rescan(e int) {
	g := &s.net
	cost := g.cost[g.at(e, 0):][:s.experts]
	mover := g.mover[g.at(e, 0):][:s.experts]
	for _, f := range g.stale {
		cost[f], mover[f] = heldMark, -1
	}
	for _, t := range s.members[e] {
		row := s.row(int(t))
		own := row[e] + heldMark
		for _, f := range g.stale {
			if c := own - row[f]; c < cost[f] {
				cost[f], mover[f] = c, t
			}
		}
	}
}

// remove deletes the one entry x of list, keeping no order.
func remove(list []int32, x int32) []int32 {
	last := len(list) - 1
	for i, v := range list {
		if v == x {
			list[i] = list[last]
			break
		}
	}
	return list[:last]
}
