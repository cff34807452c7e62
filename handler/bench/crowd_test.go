package bench_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// crowd is an audit log with any number of sign-ups, in front of a simulated tenant that has only those of them who are
// worked: the simulation holds every user and every record, and looks at all of them for each page. Records are computed,
// of the size that Graph's have, 2.3 KB; pages have as many as are asked for, and the simulation's limit is not asked, since
// the program keeps a pace of its own.
type crowd struct {
	http.Handler // the simulations
	size         int
	at           time.Time    // when they all signed up
	pages        atomic.Int64 // of the log with sign-ups in them, that were asked for
	patches      atomic.Int64 // of users, likewise
}

// user is the nth one's id.
func (c *crowd) user(n int) signup.UserID {
	return signup.UserID(fmt.Sprintf("75b523ca-%04x-4ddf-80af-%012x", n%65536, n))
}

// signUp brings the first n of the crowd into the tenant.
func (c *crowd) signUp(t *sim.Tenant, n int) {
	for i := range n {
		t.SignUp(sim.Person{ID: c.user(i), Email: fmt.Sprintf("bench%d@example.com", i), GivenName: "Ada", Surname: fmt.Sprintf("Bench %d", i),
			Attributes: map[string]any{"marketingOptIn": true}})
	}
}

func (c *crowd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPatch {
		c.patches.Add(1)
	}
	if r.URL.Path != "/v1.0/auditLogs/directoryAudits" || r.Header.Get("Authorization") == "" {
		c.Handler.ServeHTTP(w, r)
		return
	}
	query := r.URL.Query()
	size := 0
	if c.within(query.Get("$filter")) {
		size = c.size
	}
	first, _ := strconv.Atoi(query.Get("$skiptoken")) // none on the first page
	top, err := strconv.Atoi(query.Get("$top"))
	if err != nil || top < 1 || top > 1000 {
		http.Error(w, "want a $top from 1 to 1000", http.StatusBadRequest)
		return
	}
	after := min(first+top, size)
	if after > first {
		c.pages.Add(1)
	}
	var b bytes.Buffer
	b.WriteString(`{"@odata.context":"https://graph.microsoft.com/v1.0/$metadata#auditLogs/directoryAudits"`)
	if after < size {
		query.Set("$skiptoken", strconv.Itoa(after))
		fmt.Fprintf(&b, `,"@odata.nextLink":"https://%s%s?%s"`, r.Host, r.URL.Path, query.Encode())
	}
	b.WriteString(`,"value":[`)
	for n := first; n < after; n++ {
		if n > first {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, auditRecord, c.user(n), c.at.Format("2006-01-02T15:04:05.0000000Z"))
	}
	b.WriteString(`]}`)
	w.Header().Set("Content-Type", "application/json")
	_, _ = b.WriteTo(w) // to nobody, if the program is gone
}

// within reports that a filter is for what people do who sign up, when they did.
func (c *crowd) within(filter string) bool {
	if !strings.Contains(filter, "activityDisplayName eq 'Add user'") {
		return false
	}
	words := strings.Fields(filter)
	for i := 0; i+2 < len(words); i++ {
		at, err := time.Parse(time.RFC3339, words[i+2])
		if words[i] != "activityDateTime" || err != nil {
			continue
		}
		if words[i+1] == "ge" && c.at.Before(at) || words[i+1] == "le" && c.at.After(at) {
			return false
		}
	}
	return true
}

var auditRecord = `{"id":"Directory_%[1]s_FAAG0_14557051","category":"UserManagement","correlationId":"%[1]s","result":"success","resultReason":"",` +
	`"activityDisplayName":"Add user","activityDateTime":"%[2]s","loggedByService":"Core Directory","operationType":"Add",` +
	`"initiatedBy":{"user":null,"app":{"appId":null,"displayName":"CPIM Service","servicePrincipalId":"5f7f1f6a-0000-4000-8000-000000000001","servicePrincipalName":null}},` +
	`"targetResources":[{"id":"%[1]s","displayName":null,"type":"User","userPrincipalName":"%[1]s@contoso.onmicrosoft.com","groupType":null,"modifiedProperties":[` +
	strings.Repeat(`{"displayName":"UserPrincipalName","oldValue":"[]","newValue":"[\"%[1]s@contoso.onmicrosoft.com\"]"},`, 11) +
	`{"displayName":"UserType","oldValue":"[]","newValue":"[\"Member\"]"}]}],"additionalDetails":[]}`
