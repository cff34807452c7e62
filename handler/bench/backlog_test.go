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

// backlog is an audit log with any number of sign-ups, in front of a simulated tenant that has only those of them who are
// worked: the simulation holds every user and every record, and looks at all of them for each page. Records are computed,
// of the size that Graph's have, 2.3 KB; pages have as many as are asked for, and the simulation's limit is not asked, since
// the program keeps a pace of its own.
type backlog struct {
	http.Handler // the simulations
	size         int
	at           time.Time    // when they all signed up
	pages        atomic.Int64 // of the log with sign-ups in them, that were asked for
	patches      atomic.Int64 // of users, likewise
}

// user is the nth one's id.
func (b *backlog) user(n int) signup.UserID {
	return signup.UserID(fmt.Sprintf("75b523ca-%04x-4ddf-80af-%012x", n%65536, n))
}

// signUp brings the first n of them into the tenant.
func (b *backlog) signUp(t *sim.Tenant, n int) {
	for i := range n {
		t.SignUp(sim.Person{ID: b.user(i), Email: fmt.Sprintf("bench%d@example.com", i), GivenName: "Ada", Surname: fmt.Sprintf("Bench %d", i),
			Attributes: map[string]any{"marketingOptIn": true}})
	}
}

func (b *backlog) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPatch {
		b.patches.Add(1)
	}
	if r.URL.Path != "/v1.0/auditLogs/directoryAudits" || r.Header.Get("Authorization") == "" {
		b.Handler.ServeHTTP(w, r)
		return
	}
	query := r.URL.Query()
	size := 0
	if b.within(query.Get("$filter")) {
		size = b.size
	}
	first, _ := strconv.Atoi(query.Get("$skiptoken")) // none on the first page
	top, err := strconv.Atoi(query.Get("$top"))
	if err != nil || top < 1 || top > 1000 {
		http.Error(w, "want a $top from 1 to 1000", http.StatusBadRequest)
		return
	}
	after := min(first+top, size)
	if after > first {
		b.pages.Add(1)
	}
	var page bytes.Buffer
	page.WriteString(`{"@odata.context":"https://graph.microsoft.com/v1.0/$metadata#auditLogs/directoryAudits"`)
	if after < size {
		query.Set("$skiptoken", strconv.Itoa(after))
		fmt.Fprintf(&page, `,"@odata.nextLink":"https://%s%s?%s"`, r.Host, r.URL.Path, query.Encode())
	}
	page.WriteString(`,"value":[`)
	for n := first; n < after; n++ {
		if n > first {
			page.WriteByte(',')
		}
		fmt.Fprintf(&page, auditRecord, b.user(n), b.at.Format("2006-01-02T15:04:05.0000000Z"))
	}
	page.WriteString(`]}`)
	w.Header().Set("Content-Type", "application/json")
	_, _ = page.WriteTo(w) // to nobody, if the program is gone
}

// within reports that a filter is for what people do who sign up, when they did.
func (b *backlog) within(filter string) bool {
	if !strings.Contains(filter, "activityDisplayName eq 'Add user'") {
		return false
	}
	words := strings.Fields(filter)
	for i := 0; i+2 < len(words); i++ {
		at, err := time.Parse(time.RFC3339, words[i+2])
		if words[i] != "activityDateTime" || err != nil {
			continue
		}
		if words[i+1] == "ge" && b.at.Before(at) || words[i+1] == "le" && b.at.After(at) {
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
