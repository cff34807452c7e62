package ledger

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"
)

// TablesOptions says where the tables are: in the account of ConnectionString, or at TableServiceURL, or in the account
// AccountName of the public cloud. The latter two need Credential.
type TablesOptions struct {
	Tenant           string                 // the partition key
	ConnectionString string                 // AzureWebJobsStorage: with AccountKey or SharedAccessSignature, or UseDevelopmentStorage=true
	TableServiceURL  string                 // AzureWebJobsStorage__tableServiceUri
	AccountName      string                 // AzureWebJobsStorage__accountName
	Credential       azcore.TokenCredential //
	Transport        policy.Transporter     // nil = the SDK's own
	Prefix           string                 // of the tables' names, so that tests do not meet
}

var (
	accountName = regexp.MustCompile(`^[a-z0-9]{3,24}$`)
	tablePrefix = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9]{0,49})?$`)
)

// OpenTables is a Ledger in Azure Table Storage, or in its emulator. It sends nothing yet: Check does.
func OpenTables(o TablesOptions) (*Ledger, error) {
	if !tablePrefix.MatchString(o.Prefix) {
		return nil, fmt.Errorf("open the ledger: prefix %q, want at most 50 letters and digits, a letter first", o.Prefix)
	}
	service, err := o.service()
	if err != nil {
		return nil, fmt.Errorf("open the ledger: %w", err)
	}
	s := &tables{partition: strings.ToLower(o.Tenant), clients: make(map[string]*aztables.Client)}
	for _, table := range []string{signups, state} {
		s.clients[table] = service.NewClient(o.Prefix + table)
	}
	return newLedger(o.Tenant, s), nil
}

// ownBody gives each try a body of its own. The SDK rewinds the one that all tries share, also while the transport is
// still sending it because the service has answered early: the next try would go out with a part of it.
type ownBody struct{}

func (ownBody) Do(req *policy.Request) (*http.Response, error) {
	if raw := req.Raw(); raw.Body != nil && raw.Body != http.NoBody {
		body, err := io.ReadAll(raw.Body)
		if err != nil {
			return nil, err
		}
		raw.Body = io.NopCloser(bytes.NewReader(body))
		raw.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	}
	return req.Next()
}

// clientOptions sets all that the SDK would leave open: without TryTimeout it waits for an answer for ever, and its own
// pauses keep a dead endpoint unnoticed for nine seconds and more.
func (o TablesOptions) clientOptions() *aztables.ClientOptions {
	return &aztables.ClientOptions{ClientOptions: policy.ClientOptions{
		Transport: o.Transport, PerRetryPolicies: []policy.Policy{ownBody{}},
		Retry: policy.RetryOptions{
			MaxRetries: 3, RetryDelay: 500 * time.Millisecond, MaxRetryDelay: 20 * time.Second, TryTimeout: 15 * time.Second,
		},
	}}
}

func (o TablesOptions) service() (*aztables.ServiceClient, error) {
	if o.ConnectionString != "" {
		c, err := parseConnection(o.ConnectionString)
		if err != nil {
			return nil, fmt.Errorf("read the setting AzureWebJobsStorage: %w", err)
		}
		if c.signature != "" {
			return aztables.NewServiceClientWithNoCredential(c.url+"/?"+c.signature, o.clientOptions())
		}
		key, err := aztables.NewSharedKeyCredential(c.account, c.key)
		if err != nil {
			return nil, errors.New("read the setting AzureWebJobsStorage: AccountKey is not base64")
		}
		return aztables.NewServiceClientWithSharedKey(c.url, key, o.clientOptions())
	}
	address, setting := o.TableServiceURL, "AzureWebJobsStorage__tableServiceUri"
	if address == "" {
		if o.AccountName == "" {
			return nil, errors.New("no storage account is named: set AzureWebJobsStorage to a connection string, or AzureWebJobsStorage__accountName to use an identity")
		}
		if !accountName.MatchString(o.AccountName) {
			return nil, fmt.Errorf("read the setting AzureWebJobsStorage__accountName: %q, want 3 to 24 of a-z and 0-9", o.AccountName)
		}
		address, setting = "https://"+o.AccountName+".table.core.windows.net", "AzureWebJobsStorage__accountName"
	}
	address, err := endpoint(address)
	if err != nil {
		return nil, fmt.Errorf("read the setting %s: %w", setting, err)
	}
	if !strings.HasPrefix(address, "https:") {
		return nil, fmt.Errorf("read the setting %s: a token is only sent over https", setting)
	}
	if !ofAzure(address) {
		return nil, fmt.Errorf("read the setting %s: the identity's token goes to Azure only: want a host below %s", setting, strings.Join(tableDomains, ", "))
	}
	if o.Credential == nil {
		return nil, fmt.Errorf("open the account of %s: there is no credential", setting)
	}
	return aztables.NewServiceClient(address, o.Credential, o.clientOptions())
}

// tableDomains are the table service's in Azure's clouds.
var tableDomains = []string{".table.core.windows.net", ".table.storage.azure.net", ".table.core.usgovcloudapi.net", ".table.core.chinacloudapi.cn"}

// ofAzure reports that an address is the table service's, or this machine's. The token that is sent there is good for
// every storage account that the identity may use, the one with the program itself among them.
func ofAzure(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false // endpoint has parsed it
	}
	host := strings.ToLower(u.Hostname())
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback() || slices.ContainsFunc(tableDomains, func(d string) bool { return strings.HasSuffix(host, d) })
}

// connection is what a connection string says about the table service.
type connection struct {
	url       string // without a slash at the end
	account   string
	key       string
	signature string // shared access signature, without the question mark
}

// The emulator's published account: https://learn.microsoft.com/azure/storage/common/storage-use-azurite
const (
	emulatorAccount = "devstoreaccount1"
	emulatorKey     = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
	emulatorURL     = "http://127.0.0.1:10002/" + emulatorAccount
)

// parseConnection reads a connection string as the .NET SDK does, with which the Functions host reads the same setting:
// the Go SDK knows neither UseDevelopmentStorage nor a TableEndpoint beside a signature. An error names a part of the
// string, never its value.
func parseConnection(s string) (connection, error) {
	if strings.HasPrefix(strings.TrimSpace(s), "@Microsoft.KeyVault(") {
		return connection{}, errors.New("it is a Key Vault reference that was not resolved: check the vault's access and the secret's name")
	}
	parts := make(map[string]string)
	for i, part := range strings.Split(strings.Trim(strings.TrimSpace(s), ";"), ";") {
		name, value, ok := strings.Cut(part, "=")
		if !ok {
			return connection{}, fmt.Errorf("part %d has no '=': want Name=value;Name=value", i+1)
		}
		parts[strings.ToLower(strings.TrimSpace(name))] = strings.TrimSpace(value)
	}
	if strings.EqualFold(parts["usedevelopmentstorage"], "true") {
		return connection{url: emulatorURL, account: emulatorAccount, key: emulatorKey}, nil
	}
	c := connection{account: parts["accountname"], key: parts["accountkey"],
		signature: strings.TrimPrefix(parts["sharedaccesssignature"], "?")}
	switch {
	case c.key == "" && c.signature == "":
		return connection{}, errors.New("it has neither AccountKey nor SharedAccessSignature: want a connection string, or UseDevelopmentStorage=true")
	case c.key != "" && c.account == "":
		return connection{}, errors.New("it has an AccountKey and no AccountName")
	}
	address := parts["tableendpoint"]
	if address == "" {
		if !accountName.MatchString(c.account) {
			return connection{}, errors.New("it has neither TableEndpoint nor a valid AccountName")
		}
		address = cmp.Or(parts["defaultendpointsprotocol"], "https") + "://" + c.account + ".table." + cmp.Or(parts["endpointsuffix"], "core.windows.net")
	}
	var err error
	if c.url, err = endpoint(address); err != nil {
		return connection{}, fmt.Errorf("check TableEndpoint, DefaultEndpointsProtocol and EndpointSuffix: %w", err)
	}
	return c, nil
}

// endpoint checks the table service's root. It refuses a query, where a signature could hide, without printing it.
func endpoint(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.User != nil || u.Fragment != "" {
		return "", errors.New("not the address of a table service: want https://<account>.table.core.windows.net")
	}
	return strings.TrimRight(address, "/"), nil
}
