package entra

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"signup-sync/handler/signup"
)

// largePage is a page of sign-ups of the size that Graph sends: about 2.3 KB a record.
func largePage(records int) []byte {
	change := `{"displayName":"UserPrincipalName","oldValue":"[]","newValue":"[\"75b523ca-d064-4ddf-80af-87738f504026@contoso.onmicrosoft.com\"]"}`
	var b bytes.Buffer
	b.WriteString(`{"@odata.context":"https://graph.microsoft.com/v1.0/$metadata#auditLogs/directoryAudits","value":[`)
	for i := range records {
		if i > 0 {
			b.WriteByte(',')
		}
		id := fmt.Sprintf("75b523ca-d064-4ddf-80af-%012x", i)
		fmt.Fprintf(&b, `{"id":"Directory_%[1]s_FAAG0_14557051","category":"UserManagement","correlationId":"%[1]s","result":"success","resultReason":"",`+
			`"activityDisplayName":"Add user","activityDateTime":"2026-01-02T03:04:05.1234567Z","loggedByService":"Core Directory","operationType":"Add",`+
			`"initiatedBy":{"user":null,"app":{"appId":null,"displayName":"CPIM Service","servicePrincipalId":"5f7f1f6a-0000-4000-8000-000000000001","servicePrincipalName":null}},`+
			`"targetResources":[{"id":"%[1]s","displayName":null,"type":"User","userPrincipalName":"%[1]s@contoso.onmicrosoft.com","groupType":null,"modifiedProperties":[%[2]s]}],"additionalDetails":[]}`,
			id, strings.Repeat(change+",", 10)+change)
	}
	b.WriteString(`]}`)
	return b.Bytes()
}

func decodeLargePage(body []byte) (int, error) {
	s := newSieve(&Tenant{}, "audit", signup.Window{From: time.Unix(0, 0), To: time.Unix(1<<40, 0)})
	_, err := decodePage(newDecoder(bytes.NewReader(body)), s.auditRecord)
	return len(s.events), err
}

func TestAnAnswerThatIsTooLargeIsAnError(t *testing.T) {
	const body = `{"value":[]}`
	for limit, want := range map[int64]string{100: "<nil>", 5: "the answer is too large"} {
		d := &decoder{json.NewDecoder(&limited{strings.NewReader(body), limit})}
		_, err := decodePage(d, func(d *decoder) error { return d.skip() })
		if got := fmt.Sprint(err); got != want {
			t.Errorf("limit %d: got %s, want %s", limit, got, want)
		}
	}
}

func TestFollowStaysOnTheHost(t *testing.T) {
	root, err := parseRoot("https://graph.microsoft.com/")
	if err != nil {
		t.Fatal(err)
	}
	c := &client{root: root}
	for link, want := range map[string]bool{
		"https://graph.microsoft.com/v1.0/users?$skiptoken=1":      true,
		"https://GRAPH.microsoft.com:443/v1.0/users?$skiptoken=1":  true,
		"https://graph.microsoft.com:8443/v1.0/users?$skiptoken=1": false,
		"http://graph.microsoft.com/v1.0/users?$skiptoken=1":       false,
		"https://graph.microsoft.com.evil.example/v1.0/users":      false,
		"https://graph.microsoft.com@evil.example/v1.0/users":      false,
		"https://user@graph.microsoft.com/v1.0/users":              false,
		"//graph.microsoft.com/v1.0/users":                         false,
		"/v1.0/users":                                              false,
		"https://graph.microsoft.com/%zz":                          false,
	} {
		if _, err := c.follow(link, ""); (err == nil) != want {
			t.Errorf("%s: got %v, want followed %v", link, err, want)
		}
	}
}
