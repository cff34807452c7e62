package ledger

import (
	"context"
	"slices"
	"sort"
	"strconv"
	"sync"
)

// Memory is a Ledger that forgets everything when the process ends.
func Memory(tenant string) *Ledger {
	return newLedger(tenant, &memory{tables: map[string]*memoryTable{signups: newMemoryTable(), state: newMemoryTable()}})
}

type memory struct {
	mu      sync.Mutex
	counter int64 // the last version given
	tables  map[string]*memoryTable
}

type memoryTable struct {
	entities map[string]entity
	keys     sortedKeys
}

func newMemoryTable() *memoryTable { return &memoryTable{entities: make(map[string]entity)} }

func (m *memory) apply(ctx context.Context, table string, ops []op) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.tables[table]
	for _, o := range ops { // no key occurs twice, so the conditions do not depend on each other
		old, exists := t.entities[o.Key]
		if exists == (o.action == insert) || o.action == replace && old.Version != o.Version {
			return nil, errRefused
		}
	}
	versions := make([]string, len(ops))
	for i, o := range ops {
		if o.action == remove {
			delete(t.entities, o.Key)
			t.keys.remove(o.Key)
			continue
		}
		m.counter++
		o.Version = strconv.FormatInt(m.counter, 10)
		versions[i] = o.Version
		t.entities[o.Key] = o.entity
		if o.action == insert {
			t.keys.add(o.Key)
		}
	}
	return versions, nil
}

func (m *memory) get(ctx context.Context, table string, keys []string) (map[string]entity, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	found := make(map[string]entity, len(keys))
	for _, k := range keys {
		if e, ok := m.tables[table].entities[k]; ok {
			found[k] = e
		}
	}
	return found, nil
}

func (m *memory) scan(ctx context.Context, table, after, before string, limit int) ([]entity, bool, error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.tables[table]
	var page []entity
	for key := range t.keys.behind(after) {
		if key >= before {
			break
		}
		if len(page) == limit {
			return page, true, nil
		}
		page = append(page, t.entities[key])
	}
	return page, false, nil
}

func (m *memory) access(ctx context.Context) (Access, error) { return Access{}, ctx.Err() }

func (m *memory) close() error { return nil }

// sortedKeys is a set of keys in order, cut into runs so that a change moves one run and not all that is behind it.
type sortedKeys struct {
	runs [][]string // none is empty
}

const maxRun = 512

// run is the index of the run where key is or would be.
func (s *sortedKeys) run(key string) int {
	i := sort.Search(len(s.runs), func(i int) bool { return s.runs[i][0] > key })
	return max(i-1, 0)
}

func (s *sortedKeys) add(key string) {
	if len(s.runs) == 0 {
		s.runs = [][]string{{key}}
		return
	}
	i := s.run(key)
	at, found := slices.BinarySearch(s.runs[i], key)
	if found {
		return
	}
	s.runs[i] = slices.Insert(s.runs[i], at, key)
	if n := len(s.runs[i]); n > maxRun {
		s.runs = slices.Insert(s.runs, i+1, slices.Clone(s.runs[i][n/2:]))
		s.runs[i] = slices.Delete(s.runs[i], n/2, n)
	}
}

func (s *sortedKeys) remove(key string) {
	if len(s.runs) == 0 {
		return
	}
	i := s.run(key)
	at, found := slices.BinarySearch(s.runs[i], key)
	if !found {
		return
	}
	s.runs[i] = slices.Delete(s.runs[i], at, at+1)
	if len(s.runs[i]) == 0 {
		s.runs = slices.Delete(s.runs, i, i+1)
	}
}

// behind yields the keys greater than after, in order.
func (s *sortedKeys) behind(after string) func(func(string) bool) {
	return func(yield func(string) bool) {
		if len(s.runs) == 0 {
			return
		}
		for i := s.run(after); i < len(s.runs); i++ {
			at, _ := slices.BinarySearchFunc(s.runs[i], after, func(k, after string) int {
				if k > after {
					return 1
				}
				return -1
			})
			for _, k := range s.runs[i][at:] {
				if !yield(k) {
					return
				}
			}
		}
	}
}
