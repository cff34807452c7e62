package entra

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	abstractions "github.com/microsoft/kiota-abstractions-go"
)

// direct makes a request without a builder of the SDK, for the parts of Graph of which a few calls are all that is
// needed. The builders of groups and of entitlement management are 2,300 generated files, half a minute of a cold build,
// and the SDK's model of an assignment lacks the three ids of which a request for one consists. Authentication, pacing
// and everything else are as for any request. A body of nil is none.
func (c *client) direct(method abstractions.HttpMethod, link string, body any) func(context.Context) (*abstractions.RequestInformation, error) {
	return func(context.Context) (*abstractions.RequestInformation, error) {
		u, err := url.Parse(link)
		if err != nil {
			return nil, fmt.Errorf("make the request: %w", err)
		}
		info := abstractions.NewRequestInformation()
		info.Method = method
		info.SetUri(*u)
		info.Headers.Add("Accept", "application/json")
		if body == nil {
			return info, nil
		}
		if info.Content, err = json.Marshal(body); err != nil {
			return nil, fmt.Errorf("make the request: %w", err)
		}
		info.Headers.Add("Content-Type", "application/json")
		return info, nil
	}
}

// link is the address of a path of v1.0, with the parameters of its query as names and values in turn.
func (c *client) link(path string, query ...string) string {
	return c.linkTo("v1.0", path, query...)
}

func (c *client) linkTo(version, path string, query ...string) string {
	values := url.Values{}
	for i := 0; i < len(query); i += 2 {
		values.Set(query[i], query[i+1])
	}
	s := c.root.String() + "/" + version + path
	if len(values) > 0 {
		s += "?" + strings.ReplaceAll(values.Encode(), "+", "%20")
	}
	return s
}

// readAll reads a collection that is known to be small, to its last page.
func readAll[T any](ctx context.Context, c *client, k kind, link string) ([]T, error) {
	var all, page []T
	err := c.read(ctx, collection{
		request: request{kind: k, info: c.direct(abstractions.GET, link, nil)},
		next: func(ctx context.Context, link string) (*abstractions.RequestInformation, error) {
			return c.direct(abstractions.GET, link, nil)(ctx)
		},
		each: func(d *decoder) error {
			var v T
			if err := d.value(&v); err != nil {
				return err
			}
			page = append(page, v)
			return nil
		},
		page: func(start bool) bool {
			if !start {
				all = append(all, page...)
			}
			page = nil
			return true
		},
	})
	return all, err
}
