package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"signup-sync/handler/ledger"
	"signup-sync/handler/signup"
)

const (
	secretKey = "c2VjcmV0LWtleS1vZi10aGUtYWNjb3VudA==" // "secret-key-of-the-account"
	secretSAS = "sv=2019-02-02&sig=c2VjcmV0LXNpZ25hdHVyZQ%3D%3D"
)

var secrets = []string{secretKey, "c2VjcmV0LXNpZ25hdHVyZQ", "secret-token"}

func noSecrets(t *testing.T, text string) {
	t.Helper()
	for _, s := range secrets {
		if strings.Contains(text, s) {
			t.Errorf("a secret is in the text: %s", text)
		}
	}
}

type credential struct{}

func (credential) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: "secret-token", ExpiresOn: time.Now().Add(time.Hour)}, nil
}

func TestSettingsLeadToTheService(t *testing.T) {
	cases := []struct {
		name     string
		options  ledger.TablesOptions
		endpoint string
		signed   string // what the Authorization header begins with
	}{
		{"an account's key", ledger.TablesOptions{ConnectionString: "DefaultEndpointsProtocol=https;AccountName=acct;AccountKey=" + secretKey + ";EndpointSuffix=core.windows.net"},
			"https://acct.table.core.windows.net/", "SharedKeyLite acct:"},
		{"names in any letter case, spaces, a last semicolon", ledger.TablesOptions{ConnectionString: " accountname=acct ; ACCOUNTKEY=" + secretKey + ";\n"},
			"https://acct.table.core.windows.net/", "SharedKeyLite acct:"},
		{"another cloud", ledger.TablesOptions{ConnectionString: "AccountName=acct;AccountKey=" + secretKey + ";EndpointSuffix=core.chinacloudapi.cn"},
			"https://acct.table.core.chinacloudapi.cn/", "SharedKeyLite acct:"},
		{"an endpoint of its own", ledger.TablesOptions{ConnectionString: "AccountName=acct;AccountKey=" + secretKey + ";TableEndpoint=http://127.0.0.1:1234/acct/"},
			"http://127.0.0.1:1234/acct/", "SharedKeyLite acct:"},
		{"a shared access signature", ledger.TablesOptions{ConnectionString: "TableEndpoint=https://acct.example.net/;SharedAccessSignature=?" + secretSAS},
			"https://acct.example.net/", ""},
		{"a shared access signature by account", ledger.TablesOptions{ConnectionString: "AccountName=acct;SharedAccessSignature=" + secretSAS},
			"https://acct.table.core.windows.net/", ""},
		{"the emulator", ledger.TablesOptions{ConnectionString: "UseDevelopmentStorage=true"},
			"http://127.0.0.1:10002/devstoreaccount1/", "SharedKeyLite devstoreaccount1:"},
		{"an identity and an account", ledger.TablesOptions{AccountName: "acct", Credential: credential{}},
			"https://acct.table.core.windows.net/", "Bearer secret-token"},
		{"an identity and an address", ledger.TablesOptions{AccountName: "acct", TableServiceURL: "https://acct.table.core.usgovcloudapi.net/", Credential: credential{}},
			"https://acct.table.core.usgovcloudapi.net/", "Bearer secret-token"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			requests := 0
			c.options.Transport = transport(func(req *http.Request) (*http.Response, error) {
				requests++
				if got := req.URL.String(); !strings.HasPrefix(got, c.endpoint+"signups(") && !strings.HasPrefix(got, c.endpoint+"state(") {
					t.Errorf("address: got %s, want %s<table>(", got, c.endpoint)
				}
				auth := req.Header.Get("Authorization")
				if !strings.HasPrefix(auth, c.signed) {
					t.Errorf("authorization: got %q, want %q…", auth, c.signed)
				}
				if c.signed == "" && (auth != "" || !strings.Contains(req.URL.RawQuery, "sig=")) {
					t.Errorf("got query %q and authorization %q, want the signature in the query", req.URL.RawQuery, auth)
				}
				resp := reply(req, 404, `{"odata.error":{"code":"TableNotFound"}}`)
				resp.Header.Set("x-ms-error-code", "TableNotFound")
				return resp, nil
			})
			l := openTables(t, c.options)
			if requests != 0 {
				t.Errorf("requests before the first call: got %d, want 0", requests)
			}
			if err := l.Check(t.Context()); err != nil {
				t.Errorf("check: %v", err)
			}
			if requests != 6 { // of each table: read, change, remove
				t.Errorf("requests of check: got %d, want 6", requests)
			}
		})
	}
}

func TestBadSettingsAreNamed(t *testing.T) {
	cases := []struct {
		name    string
		options ledger.TablesOptions
		want    string
	}{
		{"nothing", ledger.TablesOptions{}, "set AzureWebJobsStorage to a connection string, or AzureWebJobsStorage__accountName"},
		{"not a connection string", ledger.TablesOptions{ConnectionString: secretKey[:10]}, "AzureWebJobsStorage: part 1 has no '='"},
		{"a bare key", ledger.TablesOptions{ConnectionString: secretKey}, "AzureWebJobsStorage: it has neither AccountKey nor SharedAccessSignature"},
		{"no key", ledger.TablesOptions{ConnectionString: "AccountName=acct"}, "AzureWebJobsStorage: it has neither AccountKey nor"},
		{"no name", ledger.TablesOptions{ConnectionString: "AccountKey=" + secretKey}, "AzureWebJobsStorage: it has an AccountKey and no AccountName"},
		{"a key that is none", ledger.TablesOptions{ConnectionString: "AccountName=acct;AccountKey=%" + secretKey}, "AzureWebJobsStorage: AccountKey is not base64"},
		{"a bad endpoint", ledger.TablesOptions{ConnectionString: "AccountName=acct;AccountKey=" + secretKey + ";TableEndpoint=acct.example.net"}, "AzureWebJobsStorage: check TableEndpoint"},
		{"a signature in the endpoint", ledger.TablesOptions{ConnectionString: "AccountName=acct;AccountKey=" + secretKey + ";TableEndpoint=https://a.example.net/?" + secretSAS}, "AzureWebJobsStorage: check TableEndpoint"},
		{"an unresolved reference", ledger.TablesOptions{ConnectionString: "@Microsoft.KeyVault(SecretUri=https://v.example.net/secrets/s)"}, "AzureWebJobsStorage: it is a Key Vault reference"},
		{"a bad account", ledger.TablesOptions{AccountName: "acct.example.net", Credential: credential{}}, "AzureWebJobsStorage__accountName"},
		{"a token in the clear", ledger.TablesOptions{TableServiceURL: "http://acct.example.net", Credential: credential{}}, "AzureWebJobsStorage__tableServiceUri: a token is only sent over https"},
		{"a token for anybody", ledger.TablesOptions{TableServiceURL: "https://acct.table.core.windows.net.example.com", Credential: credential{}},
			"AzureWebJobsStorage__tableServiceUri: the identity's token goes to Azure only: want a host below .table.core.windows.net"},
		{"no credential", ledger.TablesOptions{AccountName: "acct"}, "AzureWebJobsStorage__accountName: there is no credential"},
		{"a bad prefix", ledger.TablesOptions{ConnectionString: "UseDevelopmentStorage=true", Prefix: "a-b"}, `prefix "a-b"`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := ledger.OpenTables(c.options)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got error %v, want one with %q", err, c.want)
			}
			noSecrets(t, err.Error())
		})
	}
}

func TestErrorsTellTheFixAndNoSecret(t *testing.T) {
	cases := []struct {
		name   string
		answer transport
		want   string
		class  signup.Class
	}{
		{"forbidden", func(req *http.Request) (*http.Response, error) {
			resp := reply(req, 403, `{"odata.error":{"code":"AuthorizationPermissionMismatch","message":{"value":"`+secretKey+`"}}}`)
			resp.Header.Set("x-ms-error-code", "AuthorizationPermissionMismatch")
			return resp, nil
		}, "forbidden (HTTP 403): AuthorizationPermissionMismatch (give the identity the role Storage Table Data Contributor on the storage account; ", signup.Systemic},
		{"a proxy's 404", func(req *http.Request) (*http.Response, error) {
			return reply(req, 404, `<html>not here`), nil
		}, "HTTP 404", signup.Permanent},
		{"no network", func(req *http.Request) (*http.Response, error) {
			return nil, &url.Error{Op: req.Method, URL: req.URL.String(), Err: &net.DNSError{Err: "no such host", Name: "acct"}}
		}, "unreachable: the account's name cannot be resolved", signup.Transient},
		{"something else answers", func(req *http.Request) (*http.Response, error) {
			return nil, &url.Error{Op: req.Method, URL: req.URL.String(), Err: errors.New(`malformed HTTP response "secret-token"`)}
		}, "unreachable: the connection failed", signup.Transient},
		{"a code that is none", func(req *http.Request) (*http.Response, error) {
			return reply(req, 400, `{"odata.error":{"code":"the key secret-token is wrong"}}`), nil
		}, "rejected (HTTP 400)", signup.Permanent},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // so that the SDK's pauses take no time
				l := openTables(t, ledger.TablesOptions{Transport: c.answer, ConnectionString: "TableEndpoint=https://acct.example.net;SharedAccessSignature=" + secretSAS})
				_, insertErr := l.Insert(t.Context(), newRows(0, 1))
				_, getErr := l.Get(t.Context(), []signup.UserID{user(0)})
				_, noteErr := l.Note(t.Context(), "lease")
				var dueErr error
				for _, err := range l.Due(t.Context(), noon) {
					dueErr = err
				}
				for name, err := range map[string]error{"check": l.Check(t.Context()), "insert": insertErr, "get": getErr, "note": noteErr, "due": dueErr} {
					if err == nil || !strings.Contains(err.Error(), c.want) {
						t.Errorf("%s: got error %v, want one with %q", name, err, c.want)
						continue
					}
					if got := signup.ClassOf(err); got != c.class {
						t.Errorf("%s: got class %v, want %v", name, got, c.class)
					}
					noSecrets(t, err.Error())
				}
			})
		})
	}
}

// TestWithoutATokenTheCredentialSaysWhy holds that what a credential says of itself is passed on only if it is ours: an
// SDK's text repeats what the token endpoint said.
func TestWithoutATokenTheCredentialSaysWhy(t *testing.T) {
	known := &signup.Error{Class: signup.Systemic, Code: "no-identity", Detail: "the managed identity is refused"}
	for _, c := range []struct {
		err   error
		want  string
		class signup.Class
	}{
		{known, "no-identity: the managed identity is refused", signup.Systemic},
		{errors.New("ManagedIdentityCredential authentication failed. GET http://… RESPONSE 400 secret-token"), "unreachable: the connection failed, or there is no token for it", signup.Transient},
	} {
		synctest.Test(t, func(t *testing.T) {
			never := transport(func(*http.Request) (*http.Response, error) { t.Error("a request without a token"); return nil, io.EOF })
			l := openTables(t, ledger.TablesOptions{AccountName: "acct", Credential: broken{c.err}, Transport: never})
			err := l.Check(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.want) || signup.ClassOf(err) != c.class {
				t.Fatalf("got error %v of class %v, want one with %q of class %v", err, signup.ClassOf(err), c.want, c.class)
			}
			noSecrets(t, err.Error())
		})
	}
}

// broken is a credential that gives no token.
type broken struct{ err error }

func (b broken) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{}, b.err
}

// TestAHangingServiceIsLeft needs no clock of ours: the SDK's pauses and timeouts pass in a bubble.
func TestAHangingServiceIsLeft(t *testing.T) {
	cases := []struct {
		name     string
		deadline time.Duration
		at       time.Duration // the latest end
		tries    int
	}{
		{"by the caller's deadline", 5 * time.Second, 5 * time.Second, 1},
		{"by the tries' timeouts", time.Hour, 4*15*time.Second + 10*time.Second, 4},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tries := 0
				hang := transport(func(req *http.Request) (*http.Response, error) {
					tries++
					<-req.Context().Done()
					return nil, req.Context().Err()
				})
				l := openTables(t, ledger.TablesOptions{ConnectionString: "UseDevelopmentStorage=true", Transport: hang})
				ctx, cancel := context.WithTimeout(t.Context(), c.deadline)
				defer cancel()
				start := time.Now()
				_, err := l.Insert(ctx, newRows(0, 1))
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got error %v, want the deadline's", err)
				}
				if got := time.Since(start); got > c.at || tries != c.tries {
					t.Errorf("got %d tries in %v, want %d in %v", tries, got, c.tries, c.at)
				}
			})
		})
	}
}

func TestOversizeIsRefusedBeforeAnythingIsWritten(t *testing.T) {
	eachStore(t, func(t *testing.T, l *ledger.Ledger) {
		rows := newRows(0, 3)
		for i := range 80 {
			rows[2].Associations = append(rows[2].Associations, signup.Association{Destination: fmt.Sprint("d", i), Detail: strings.Repeat("ä", 100), Account: strings.Repeat("x", 250)})
		}
		if _, err := l.Insert(t.Context(), rows); err == nil || !strings.Contains(err.Error(), "configure fewer destinations") {
			t.Errorf("insert: got error %v, want one that tells to configure fewer destinations", err)
		}
		for _, name := range []string{"", "Upper", "a/b", "a b", strings.Repeat("n", 101)} {
			if _, err := l.PutNote(t.Context(), signup.Note{Name: name, Body: []byte(`1`)}); err == nil {
				t.Errorf("put a note named %q: got no error", name)
			}
		}
		for _, body := range []string{"", "{", `"` + strings.Repeat("x", 30_000) + `"`} {
			if _, err := l.PutNote(t.Context(), signup.Note{Name: "n", Body: []byte(body)}); err == nil {
				t.Errorf("put a note of %d bytes: got no error", len(body))
			}
		}
		rows = rows[:1]
		for _, id := range []signup.UserID{"", "A", "a|b", "a'b"} {
			rows[0].User = id
			if _, err := l.Insert(t.Context(), rows); err == nil {
				t.Errorf("insert user %q: got no error", id)
			}
		}
		if got, want := l.Counts(), (ledger.Counts{}); got != want {
			t.Errorf("calls of the store: got %+v, want none", got)
		}
	})
}

// TestLargeRowsFit fills a transaction with the largest rows that are allowed, and one with 20 destinations that all
// keep as much as they may.
func TestLargeRowsFit(t *testing.T) {
	eachStore(t, func(t *testing.T, l *ledger.Ledger) {
		twenty := newRows(0, 1)
		for i := range 20 {
			twenty[0].Associations = append(twenty[0].Associations, signup.Association{
				Destination: fmt.Sprintf("a-destination-with-a-name-%d", i), State: signup.Failed, Account: strings.Repeat("x", 250), Reason: "rejected",
				Detail: strings.Repeat(`\"`, 100), Generation: 1, Attempts: 99, FirstTry: noon.Add(1), Next: noon.Add(1), Settled: noon.Add(1),
			})
		}
		mustInsert(t, l, twenty)
		rows := newRows(1, 51)
		for i := range rows {
			rows[i].Evidence = strings.Repeat(`"`, (32_768-1_000)/2) // each is escaped to two bytes, and those to four
		}
		got := used(l, func() { mustReplace(t, l, settle(mustInsert(t, l, rows))) })
		if want := (ledger.Counts{Transactions: 2}); got != want {
			t.Errorf("cost of 50 rows of 32 KB: got %+v, want %+v", got, want)
		}
	})
}
