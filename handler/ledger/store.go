package ledger

import (
	"context"
	"errors"
	"fmt"
)

// The two tables; a store may put a prefix before the names.
const (
	signups = "signups"
	state   = "state"
)

// The service's limits, held for every store: the emulator, SQLite and memory would let more through.
// https://learn.microsoft.com/rest/api/storageservices/performing-entity-group-transactions and
// https://learn.microsoft.com/rest/api/storageservices/understanding-the-table-service-data-model
const (
	maxOps         = 100     // operations in a transaction
	maxTransaction = 4 << 20 // bytes in a transaction
	maxBody        = 32_768  // characters in a string property; counted in bytes here, which is never less
	maxKey         = 200     // ours; the service takes 512 characters
	opOverhead     = 1_024   // bytes of a transaction that one operation needs beside its body, generously
)

// errRefused is returned by apply when a condition did not hold: something to insert was there, something to replace
// had another version, something to remove was gone.
var errRefused = errors.New("a condition of the transaction does not hold")

// store keeps entities in the two tables, in the order of their keys, in one partition that it was opened for.
// Everything that it is asked has been checked by Ledger; a table that does not exist is an empty one.
type store interface {
	// apply does all of ops, or none. It returns the new version of each entity, "" for a removed one; nil if it was
	// done but the store cannot tell them. errRefused means that the last attempt changed nothing; where a store
	// repeats attempts, an earlier one may have been what it was refused for.
	apply(ctx context.Context, table string, ops []op) ([]string, error)
	// get returns those of the keys that exist. Only an answer that says so makes a key absent.
	get(ctx context.Context, table string, keys []string) (map[string]entity, error)
	// scan returns at most limit entities with after < key < before in the order of keys, and whether there are more;
	// if there are, it returns at least one.
	scan(ctx context.Context, table, after, before string, limit int) (page []entity, more bool, err error)
	// access reads, and tries writes that must fail; it makes nothing.
	access(ctx context.Context) (Access, error)
	close() error
}

type entity struct {
	Key     string
	Version string // given by the store, never used again for the same key
	Mark    string // of the write that put it there
	Body    string
}

type action int

const (
	insert  action = iota // the key must not exist
	replace               // the key must exist with entity's Version
	remove                // the key must exist
)

type op struct {
	action action
	entity
}

// checkOps refuses what the service would refuse, before anything is sent.
func checkOps(ops []op) error {
	if len(ops) == 0 || len(ops) > maxOps {
		return fmt.Errorf("a transaction has %d operations, want 1 to %d", len(ops), maxOps)
	}
	size, seen := 0, make(map[string]bool, len(ops))
	for _, o := range ops {
		if err := checkKey(o.Key); err != nil {
			return err
		}
		if seen[o.Key] {
			return fmt.Errorf("key %q occurs twice in one transaction", o.Key)
		}
		if len(o.Body) > maxBody {
			return fmt.Errorf("the body of %q has %d bytes, want at most %d", o.Key, len(o.Body), maxBody)
		}
		seen[o.Key] = true
		size += 2*len(o.Body) + opOverhead // a body is JSON in JSON: at worst every byte of it is escaped
	}
	if size > maxTransaction {
		return fmt.Errorf("a transaction may have %d bytes, want at most %d", size, maxTransaction)
	}
	return nil
}

// checkKey holds keys to characters that need no escaping anywhere, in a URL, a filter or an index of SQLite.
func checkKey(key string) error {
	if key == "" || len(key) > maxKey {
		return fmt.Errorf("key %q has %d characters, want 1 to %d", key, len(key), maxKey)
	}
	for _, c := range []byte(key) {
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c == '|' || c == ':' || c == '.' || c == '-') {
			return fmt.Errorf("key %q holds %q, want only 0-9 a-z | : . -", key, c)
		}
	}
	return nil
}
