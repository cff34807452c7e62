package scripts_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"signup-sync/handler/sim"
)

// certificates makes certificates in a simulated vault, as the REST API's Create Certificate and Get Certificate Operation
// do for an issuer that signs by itself: it takes a while, and meanwhile a second request is refused.
type certificates struct {
	*sim.KeyVault
	t       *testing.T
	pending map[string]*creation // the last one of each name
	made    []*x509.Certificate
	ids     []string // their versions
	slow    int      // so many looks find it under way
	denied  bool
	walled  bool // by its network rules
}

type creation struct {
	exportable bool
	looks      int // that still find it under way
	done       bool
}

// signer is the key of every certificate; making one takes a while.
var signer = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// add puts a version into the vault.
func (c *certificates) add(name string, ends time.Time, exportable bool) *x509.Certificate {
	c.t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(int64(len(c.made) + 1)), Subject: pkix.Name{CommonName: name},
		NotBefore: ends.AddDate(-1, 0, 0), NotAfter: ends, KeyUsage: x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, template, template, signer().Public(), signer())
	if err != nil {
		c.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		c.t.Fatal(err)
	}
	c.ids = append(c.ids, c.AddCertificate(name, sim.Certificate{Key: signer(), Chain: []*x509.Certificate{cert}, NonExportable: !exportable}))
	c.made = append(c.made, cert)
	return cert
}

// policy is the part of a certificate's policy that matters here.
type policy struct {
	Issuer   struct{ Name string }
	KeyProps struct {
		Exportable *bool
		Kty        string
		Size       int  `json:"key_size"`
		Reuse      bool `json:"reuse_key"`
	} `json:"key_props"`
	X509 struct {
		Subject string
		Usage   []string `json:"key_usage"`
		Months  int      `json:"validity_months"`
	} `json:"x509_props"`
	Actions []struct {
		Action struct {
			Type string `json:"action_type"`
		}
	} `json:"lifetime_actions"`
}

// check says what is not as asked for a certificate by which an app signs assertions.
func (p policy) check() string {
	switch {
	case p.Issuer.Name != "Self" || p.KeyProps.Exportable == nil:
		return "the policy is incomplete"
	case p.KeyProps.Kty != "RSA" || p.KeyProps.Size < 2048 || p.KeyProps.Reuse:
		return "the key is not a new one of RSA with 2048 bits"
	case !slices.Equal(p.X509.Usage, []string{"digitalSignature"}) || p.X509.Months != 12:
		return "the certificate is not for signing, for twelve months"
	case len(p.Actions) != 1 || p.Actions[0].Action.Type != "EmailContacts":
		return "the vault renews it by itself, unless it is told otherwise"
	}
	return ""
}

// answer serves what the simulated vault lacks; false leaves a call to it.
func (c *certificates) answer(r *http.Request, body []byte) (reply, bool) {
	name, below, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/certificates/"), "/")
	p := c.pending[name]
	switch {
	case r.Header.Get("Authorization") == "":
		return reply{}, false // the challenge
	case c.walled:
		return refuse(http.StatusForbidden, "Forbidden", "Client address is not authorized and caller is not a trusted service. ForbiddenByFirewall"), true
	case c.denied && r.Method != http.MethodGet:
		return refuse(http.StatusForbidden, "Forbidden", "Caller is not authorized to perform action on resource. ForbiddenByRbac"), true
	case below == "create" && r.Method == http.MethodPost:
		return c.create(name, body), true
	case below == "pending" && p == nil:
		return refuse(http.StatusNotFound, "PendingCertificateNotFound", "Pending certificate not found: "+name), true
	case below == "pending":
		return c.look(name, p), true
	case below == "" && p != nil && !p.done && len(c.made) == 0:
		return reply{http.StatusOK, map[string]any{"id": "https://" + r.Host + "/certificates/" + name + "/0", "attributes": map[string]any{"enabled": false}}}, true
	}
	return reply{}, false
}

func (c *certificates) create(name string, body []byte) reply {
	var in struct{ Policy policy }
	if err := json.Unmarshal(body, &in); err != nil {
		return refuse(http.StatusBadRequest, "BadParameter", err.Error())
	}
	if text := in.Policy.check(); text != "" {
		return refuse(http.StatusBadRequest, "BadParameter", text)
	}
	if p := c.pending[name]; p != nil && !p.done {
		return refuse(http.StatusConflict, "Conflict", "A new version cannot be created while there is a pending certificate of that name.")
	}
	c.pending[name] = &creation{exportable: *in.Policy.KeyProps.Exportable, looks: c.slow}
	return reply{http.StatusAccepted, map[string]any{"status": "inProgress"}}
}

func (c *certificates) look(name string, p *creation) reply {
	if p.looks > 0 {
		p.looks--
		return reply{http.StatusOK, map[string]any{"status": "inProgress"}}
	}
	if !p.done {
		p.done = true
		c.add(name, time.Now().AddDate(1, 0, 0), p.exportable)
	}
	return reply{http.StatusOK, map[string]any{"status": "completed", "target": fmt.Sprintf("https://vault/certificates/%s", name)}}
}
