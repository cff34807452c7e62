package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"
	"golang.org/x/sync/errgroup"
)

// maxGets is how many entities are read by key at the same time.
const maxGets = 8

// tables is Azure Table Storage. Its tables are created by the first write that misses them.
type tables struct {
	partition string
	clients   map[string]*aztables.Client // by table
}

// tableEntity is an entity as the service has it. Keys, mark and body are strings because the SDK decodes every entity
// into a map first, where a number would lose digits.
type tableEntity struct {
	PartitionKey string
	RowKey       string
	Write        string `json:",omitempty"` // the mark
	Body         string `json:",omitempty"`
	ETag         string `json:"odata.etag,omitempty"` // in answers only
}

func (t tableEntity) entity() entity {
	return entity{Key: t.RowKey, Version: t.ETag, Mark: t.Write, Body: t.Body}
}

// apply sends even a single operation as a transaction: it is billed as one write either way.
func (s *tables) apply(ctx context.Context, table string, ops []op) ([]string, error) {
	actions := make([]aztables.TransactionAction, len(ops))
	for i, o := range ops {
		body, err := json.Marshal(tableEntity{PartitionKey: s.partition, RowKey: o.Key, Write: o.Mark, Body: o.Body})
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", o.Key, err)
		}
		actions[i] = aztables.TransactionAction{ActionType: aztables.TransactionTypeAdd, Entity: body}
		switch o.action {
		case replace: // without If-Match it would insert what is not there
			etag := azcore.ETag(o.Version)
			actions[i].ActionType, actions[i].IfMatch = aztables.TransactionTypeUpdateReplace, &etag
		case remove:
			etag := azcore.ETagAny
			actions[i].ActionType, actions[i].IfMatch = aztables.TransactionTypeDelete, &etag
		}
	}
	versions, err := s.submit(ctx, table, actions)
	if errors.Is(err, errNoTable) {
		if err := s.create(ctx, table); err != nil {
			return nil, err
		}
		versions, err = s.submit(ctx, table, actions)
	}
	return versions, err
}

// submit sends one transaction. The SDK keeps the answers to the single operations to itself, the new ETags and the
// reason of a refusal among them; they are read from the captured response.
func (s *tables) submit(ctx context.Context, table string, actions []aztables.TransactionAction) ([]string, error) {
	var resp *http.Response
	_, err := s.clients[table].SubmitTransaction(policy.WithCaptureResponse(ctx, &resp), actions, nil)
	if resp == nil || resp.StatusCode != http.StatusAccepted {
		return nil, failure("write", table, err)
	}
	body, readErr := runtime.Payload(resp)
	if readErr != nil {
		return nil, failure("write", table, readErr)
	}
	answers := parseAnswers(string(body))
	for _, a := range answers {
		if a.status >= 400 {
			return nil, a.failure(table)
		}
	}
	if err != nil {
		return nil, failure("write", table, err)
	}
	if len(answers) != len(actions) {
		return nil, nil // done, says the SDK; Ledger reads back
	}
	versions := make([]string, len(answers))
	for i, a := range answers {
		versions[i] = a.etag
		if a.etag == "" && actions[i].ActionType != aztables.TransactionTypeDelete {
			return nil, nil
		}
	}
	return versions, nil
}

func (s *tables) create(ctx context.Context, table string) error {
	_, err := s.clients[table].CreateTable(ctx, nil)
	if re, ok := errors.AsType[*azcore.ResponseError](err); ok && re.ErrorCode == string(aztables.TableAlreadyExists) {
		return nil
	}
	if err != nil {
		return failure("create", table, err)
	}
	return nil
}

// get reads the keys one by one, a few at a time. One query that joins the keys with "or" would be a single call, but
// the service answers that by reading the whole partition, settled rows and all:
// https://learn.microsoft.com/azure/storage/tables/table-storage-design-for-query
func (s *tables) get(ctx context.Context, table string, keys []string) (map[string]entity, error) {
	var mu sync.Mutex
	found := make(map[string]entity, len(keys))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxGets)
	for _, key := range keys {
		group.Go(func() error {
			got, err := s.clients[table].GetEntity(ctx, s.partition, key, nil)
			if err != nil {
				return ignoreAbsent(failure("read", table, err))
			}
			var t tableEntity
			if err := json.Unmarshal(got.Value, &t); err != nil {
				return fmt.Errorf("decode the entity %s: %w", key, err)
			}
			t.ETag = string(got.ETag)
			mu.Lock()
			defer mu.Unlock()
			found[key] = t.entity()
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return found, nil
}

// scan asks for full metadata, since that is where ETags are documented to be. The service may answer a page that is
// short, or empty, and say that there is more.
func (s *tables) scan(ctx context.Context, table, after, before string, limit int) ([]entity, bool, error) {
	filter := fmt.Sprintf("PartitionKey eq '%s' and RowKey gt '%s' and RowKey lt '%s'", s.partition, after, before)
	top, format := int32(limit), aztables.MetadataFormatFull
	pager := s.clients[table].NewListEntitiesPager(&aztables.ListEntitiesOptions{Filter: &filter, Top: &top, Format: &format})
	for pager.More() {
		answer, err := pager.NextPage(ctx)
		if err != nil {
			return nil, false, ignoreAbsent(failure("read", table, err))
		}
		page := make([]entity, len(answer.Entities))
		for i, b := range answer.Entities {
			var t tableEntity
			if err := json.Unmarshal(b, &t); err != nil {
				return nil, false, fmt.Errorf("decode an entity behind %s: %w", after, err)
			}
			if t.ETag == "" {
				return nil, false, fmt.Errorf("read the table %s: the answer has no odata.etag for %s", table, t.RowKey)
			}
			page[i] = t.entity()
		}
		if len(page) > 0 {
			return page, pager.More(), nil
		}
	}
	return nil, false, nil
}

// nobody is the key of an entity that cannot exist: no key of ours has that character.
const nobody = "~"

// never is a version that no entity has.
const never = azcore.ETag(`W/"datetime'2000-01-01T00%3A00%3A00.0000000Z'"`)

func (s *tables) access(ctx context.Context) (Access, error) {
	var a Access
	for _, table := range []string{signups, state} {
		if _, _, err := s.scan(ctx, table, " ", nobody, 1); err != nil {
			return Access{}, err
		}
		absent, err := s.tryWrite(ctx, table)
		if err != nil {
			return Access{}, err
		}
		if absent {
			a.Absent = append(a.Absent, table)
		}
	}
	return a, nil
}

// tryWrite changes and removes an entity that cannot exist, and of which a version is demanded that it cannot have. The
// service decides whether the caller may before it looks for the entity: only who may is told that there is none.
func (s *tables) tryWrite(ctx context.Context, table string) (absent bool, err error) {
	entity, err := json.Marshal(tableEntity{PartitionKey: s.partition, RowKey: nobody})
	if err != nil {
		return false, fmt.Errorf("encode an entity: %w", err)
	}
	etag := never
	_, changed := s.clients[table].UpdateEntity(ctx, entity, &aztables.UpdateEntityOptions{IfMatch: &etag, UpdateMode: aztables.UpdateModeReplace})
	_, removed := s.clients[table].DeleteEntity(ctx, s.partition, nobody, &aztables.DeleteEntityOptions{IfMatch: &etag})
	for _, try := range []struct {
		verb string
		err  error
	}{{"write to", changed}, {"remove from", removed}} {
		if re, ok := errors.AsType[*azcore.ResponseError](try.err); ok && re.ErrorCode == string(aztables.UpdateConditionNotSatisfied) {
			continue
		}
		switch err := failure(try.verb, table, try.err); {
		case errors.Is(err, errNoTable):
			absent = true
		case !errors.Is(err, errAbsent):
			return false, err
		}
	}
	return absent, nil
}

func (s *tables) close() error { return nil }
