package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"signup-sync/handler/identity"
)

// appSettings are a Function App's settings, as a person has printed them into a file. They hold secrets, and are never
// shown.
type appSettings struct {
	values   map[string]string // as they stand in the file
	resolved map[string]string // what the Key Vault references among them stand for
	unread   map[string]error  // references that could not be read
}

// readAppSettings reads what `az functionapp config appsettings list` prints, or a local.settings.json. No error holds a
// value.
func readAppSettings(file string) (*appSettings, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	s := &appSettings{values: map[string]string{}, resolved: map[string]string{}, unread: map[string]error{}}
	var list []struct {
		Name  string  `json:"name"`
		Value *string `json:"value"`
	}
	var local struct {
		IsEncrypted bool
		Values      map[string]string
	}
	switch {
	case bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")):
		return nil, errors.New("it is UTF-16, as an old PowerShell writes it: write UTF-8")
	case json.Unmarshal(data, &list) == nil:
		for _, one := range list {
			if one.Name != "" && one.Value != nil {
				s.values[one.Name] = *one.Value
			}
		}
	case json.Unmarshal(data, &local) == nil && local.IsEncrypted:
		return nil, errors.New(`it is encrypted: run "func settings decrypt"`)
	case local.Values != nil:
		s.values = local.Values
	default:
		return nil, errors.New("want JSON: the list that 'az functionapp config appsettings list --output json' prints, or a local.settings.json")
	}
	if len(s.values) == 0 {
		return nil, errors.New("there is no setting in it")
	}
	return s, nil
}

// ofThisMachine are names that say where this process runs and what files it has, and not how the app is set up: where
// the file does not have them they are the environment's.
var ofThisMachine = []string{"IDENTITY_ENDPOINT", "FUNCTIONS_CUSTOMHANDLER_PORT", "FUNCTIONS_APP_ROOT_PATH", "SIGNUP_SYNC_CONFIG", "EXTRA_CA_FILE"}

// getenv takes the place of the environment: a name that the file does not have is not set, were it in the environment
// or not. A reference that was not read stays what it is, and is refused as one that the platform did not resolve.
func (a *appSettings) getenv(environment func(string) string) func(string) string {
	return func(name string) string {
		if v, ok := a.resolved[name]; ok {
			return v
		}
		if v, ok := a.values[name]; ok {
			return v
		}
		if slices.Contains(ofThisMachine, name) {
			return environment(name)
		}
		return ""
	}
}

// referenceTime is how long the Key Vault has for all references together.
const referenceTime = 30 * time.Second

// resolve reads those Key Vault references that the program needs, and remembers which could not be read. getenv is the
// settings' own.
func (a *appSettings) resolve(ctx context.Context, getenv func(string) string) {
	var needed []string
	for _, name := range append(namesRead(getenv), environmentNames()...) {
		if strings.HasPrefix(strings.TrimSpace(a.values[name]), keyVaultReference) {
			needed = append(needed, name)
		}
	}
	hc, err := newHTTPClient(getenv("EXTRA_CA_FILE"))
	var own azcore.TokenCredential
	if err == nil {
		hc = bounded(hc)
		own, err = identity.OpenOwn(getenv("IDENTITY_ENDPOINT") != "", getenv("AZURE_CLIENT_ID"), hc)
	}
	if err != nil {
		for _, name := range needed {
			a.unread[name] = err
		}
		return
	}
	ctx, cancel := context.WithTimeout(ctx, referenceTime)
	defer cancel()
	vault := getenv("KEY_VAULT_URL") // not later: getenv looks at what is being resolved
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, name := range needed {
		wg.Go(func() {
			value, err := identity.ReadReference(ctx, a.values[name], vault, own, hc)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				a.unread[name] = err
			} else {
				a.resolved[name] = value
			}
		})
	}
	wg.Wait()
}

// err joins what could not be read; each names the setting and not its value.
func (a *appSettings) err() error {
	var all []error
	for _, name := range slices.Sorted(maps.Keys(a.unread)) {
		all = append(all, fmt.Errorf("--settings: %s: read the Key Vault reference: %w", name, a.unread[name]))
	}
	return errors.Join(all...)
}

// namesRead are the app settings that signup-sync.yaml reads, in its order. Of a file that cannot be read there are none:
// whoever opens it says so.
func namesRead(getenv func(string) string) []string {
	var names []string
	path := getenv("SIGNUP_SYNC_CONFIG")
	if path == "" {
		path = defaultConfig
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	_, _ = parseConfig(path, data, func(name string) string {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
		return standIn
	}, connectorChecks{})
	return names
}

// standIn is a setting's value where only the file is looked at. It is too short to be concealed in messages.
const standIn = "-"

// environmentNames are the variables of the program itself.
func environmentNames() []string {
	names := make([]string, len(environmentDocs))
	for i, e := range environmentDocs {
		names[i] = e.name
	}
	return names
}

// withSettings is the system with the settings of a file in place of the environment.
func withSettings(s system, file string) (system, error) {
	settings, err := readAppSettings(file)
	if err != nil {
		return s, refusal{fmt.Errorf("--settings: %w", err)}
	}
	s.settings, s.getenv = settings, settings.getenv(s.getenv)
	return s, nil
}
