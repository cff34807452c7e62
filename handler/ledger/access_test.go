package ledger_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/ledger"
	"signup-sync/handler/ledger/ledgertest"
	"signup-sync/handler/signup"
)

// roles stand in front of the emulator, which knows none.
type roles struct {
	may  []string // methods of HTTP
	next http.RoundTripper
}

func (r roles) Do(req *http.Request) (*http.Response, error) {
	if slices.Contains(r.may, req.Method) {
		return r.next.RoundTrip(req)
	}
	resp := reply(req, 403, `{"odata.error":{"code":"AuthorizationPermissionMismatch"}}`)
	resp.Header.Set("x-ms-error-code", "AuthorizationPermissionMismatch")
	return resp, nil
}

// all is everything that a ledger has.
func all(t *testing.T, l *ledger.Ledger) (everything []string) {
	t.Helper()
	for r, err := range l.All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		everything = append(everything, fmt.Sprintf("%s %s", r.User, r.Version))
	}
	n, err := l.Note(t.Context(), "lease")
	if err != nil {
		t.Fatal(err)
	}
	return append(everything, n.Version)
}

func TestAccessToTablesThatMayBeWritten(t *testing.T) {
	o := ledger.TablesOptions{ConnectionString: ledgertest.StartAzurite(t), Prefix: prefix()}
	l := openTables(t, o)
	for range 2 { // the first does not make what the second looks for
		if got, err := l.Access(t.Context()); err != nil || !cmp.Equal(got.Absent, []string{"signups", "state"}) {
			t.Errorf("of no tables: got %+v, %v", got, err)
		}
	}
	mustInsert(t, l, newRows(0, 3))
	if got, err := l.Access(t.Context()); err != nil || !cmp.Equal(got.Absent, []string{"state"}) {
		t.Errorf("of one table: got %+v, %v", got, err)
	}
	if _, err := l.PutNote(t.Context(), signup.Note{Name: "lease", Body: []byte(`1`)}); err != nil {
		t.Fatal(err)
	}
	before := all(t, l)
	if got, err := l.Access(t.Context()); err != nil || got.Absent != nil {
		t.Errorf("of both tables: got %+v, %v", got, err)
	}
	if diff := cmp.Diff(all(t, l), before); diff != "" {
		t.Errorf("it has changed something: got, want:\n%s", diff)
	}
}

func TestAccessNamesTheRoleThatIsMissing(t *testing.T) {
	o := ledger.TablesOptions{ConnectionString: ledgertest.StartAzurite(t), Prefix: prefix()}
	mustInsert(t, openTables(t, o), newRows(0, 1))
	tests := []struct {
		name string
		may  []string
		want string
	}{
		{"nothing", nil, "read the table signups: "},
		{"a reader", []string{"GET"}, "write to the table signups: "},
		{"who may add and change", []string{"GET", "PUT", "POST", "MERGE", "PATCH"}, "remove from the table signups: "},
		{"a contributor", []string{"GET", "PUT", "POST", "MERGE", "PATCH", "DELETE"}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o.Transport = roles{may: test.may, next: http.DefaultTransport}
			err := openTables(t, o).Check(t.Context())
			if test.want == "" {
				if err != nil {
					t.Errorf("got %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "Storage Table Data Contributor on the storage account") {
				t.Errorf("got %v, want %q and the role", err, test.want)
			}
			if e, ok := errors.AsType[*signup.Error](err); !ok || e.Class != signup.Systemic || len(e.Detail) > 200 {
				t.Errorf("got %+v", e)
			}
		})
	}
	t.Run("a service that takes what it must refuse", func(t *testing.T) {
		o.Transport = transport(func(req *http.Request) (*http.Response, error) {
			if req.Method == http.MethodGet {
				return http.DefaultTransport.RoundTrip(req)
			}
			return reply(req, 204, ""), nil
		})
		if err := openTables(t, o).Check(t.Context()); err == nil {
			t.Error("got no error")
		}
	})
}

// unsigned is a credential whose tokens the emulator takes.
type unsigned struct{}

func (unsigned) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	now := time.Now()
	claims := fmt.Sprintf(`{"aud":"https://storage.azure.com","iss":"https://sts.windows.net/ab1f708d-50f6-404c-a006-d71b2ac7a606/","iat":%d,"nbf":%[1]d,"exp":%d}`,
		now.Add(-time.Minute).Unix(), now.Add(time.Hour).Unix())
	return azcore.AccessToken{Token: part(`{"alg":"none","typ":"JWT"}`) + "." + part(claims) + ".", ExpiresOn: now.Add(time.Hour)}, nil
}

// TestAnIdentityOverTLS goes the deployed app's way: tokens, and TLS with a certificate that the client trusts.
func TestAnIdentityOverTLS(t *testing.T) {
	address, client := ledgertest.StartAzuriteTLS(t)
	o := ledger.TablesOptions{TableServiceURL: address, Credential: unsigned{}, Transport: client, Prefix: prefix()}
	l := openTables(t, o)
	if err := l.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustInsert(t, l, newRows(0, 2))
	if got, err := l.Access(t.Context()); err != nil || !cmp.Equal(got.Absent, []string{"state"}) {
		t.Errorf("got %+v, %v", got, err)
	}
	o.Transport = roles{may: []string{"GET"}, next: client.Transport}
	if err := openTables(t, o).Check(t.Context()); err == nil || !strings.Contains(err.Error(), "Storage Table Data Contributor") {
		t.Errorf("a reader: got %v", err)
	}
	o.Credential, o.Transport = credential{}, client // whose token is none
	if err := openTables(t, o).Check(t.Context()); signup.ClassOf(err) != signup.Systemic {
		t.Errorf("a wrong token: got %v", err)
	}
}

func TestAccessToAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	l, err := ledger.OpenSQLite(path, tenant)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got, err := l.Access(t.Context()); err != nil || len(got.Absent) != 2 {
		t.Errorf("no file yet: got %+v, %v", got, err)
	}
	mustInsert(t, l, newRows(0, 1))
	if got, err := l.Access(t.Context()); err != nil || got.Absent != nil {
		t.Errorf("got %+v, %v", got, err)
	}
	mustInsert(t, l, newRows(1, 2)) // the lock is given back
	if got, err := l.Access(t.Context()); err != nil || got.Absent != nil {
		t.Errorf("again: got %+v, %v", got, err)
	}
}

func TestAccessToAFileThatIsReadOnly(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write to every file")
	}
	path := filepath.Join(t.TempDir(), "ledger.db")
	l, err := ledger.OpenSQLite(path, tenant)
	if err != nil {
		t.Fatal(err)
	}
	_, err = l.Note(t.Context(), "lease") // makes the file
	if err := errors.Join(err, l.Close()); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	if l, err = ledger.OpenSQLite(path, tenant); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "ledger.db") {
		t.Errorf("got %v", err)
	}
}
