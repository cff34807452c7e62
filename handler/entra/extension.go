package entra

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	abstractions "github.com/microsoft/kiota-abstractions-go"
	"github.com/microsoftgraph/msgraph-sdk-go/applications"

	"signup-sync/handler/signup"
)

// ownerPrefix begins the display name of the app that owns an external tenant's custom attributes.
const ownerPrefix = "b2c-extensions-app"

// extensions remembers which app owns the custom attributes and, once looked up, which there are.
type extensions struct {
	given string        // client id of the app, by the configuration; "" = it is looked up
	turn  chan struct{} // one looks up at a time
	mu    sync.Mutex
	app   string            // client id without dashes
	known map[string]string // full names by lower-case full name; nil when the app was given, not looked up
}

// onPremises is the property that holds extensionAttribute1 to extensionAttribute15. They cannot be selected singly.
const onPremises = "onPremisesExtensionAttributes"

// isExtension reports that a property is one of the user's own, not part of onPremises.
func isExtension(property string) bool { return strings.HasPrefix(property, "extension_") }

// propertyNames returns what Graph calls the attributes, by their names in the configuration.
func (t *Tenant) propertyNames(ctx context.Context, attributes []string) (map[string]string, error) {
	names := make(map[string]string, len(attributes))
	var shorts []string
	for _, a := range attributes {
		switch kind, err := signup.ParseAttribute(a); {
		case err != nil:
			return nil, &signup.Error{Class: signup.Systemic, Code: "attribute-missing", Detail: clip(err.Error())}
		case kind == signup.CustomAttribute:
			shorts = append(shorts, a)
		default:
			names[a] = a
		}
	}
	custom, err := t.customNames(ctx, shorts)
	maps.Copy(names, custom)
	return names, err
}

// customNames returns the full names, extension_<app>_<name>, of the custom attributes by short name. The first call
// looks the app and its attributes up unless Options named the app; an error is not remembered.
func (t *Tenant) customNames(ctx context.Context, shorts []string) (map[string]string, error) {
	if len(shorts) == 0 {
		return nil, nil
	}
	app, known, err := t.extensionsApp(ctx, shorts)
	if err != nil {
		return nil, err
	}
	names := make(map[string]string, len(shorts))
	var missing []string
	for _, short := range shorts {
		full := "extension_" + app + "_" + short
		if known != nil {
			canonical, ok := known[strings.ToLower(full)]
			if !ok {
				missing = append(missing, short)
			}
			full = canonical
		}
		names[short] = full
	}
	if len(missing) > 0 {
		t.extensions.forget()
		return nil, missingAttributes(missing, 0)
	}
	return names, nil
}

func missingAttributes(names []string, status int) *signup.Error {
	e := &signup.Error{
		Class: signup.Systemic, Code: "attribute-missing", Status: status,
		Detail: clip("the tenant has no custom attribute "+strings.Join(names, ", ")) +
			"; create it under External Identities, Custom user attributes",
	}
	if slices.ContainsFunc(names, isExtension) {
		e.Detail = clip("the tenant has no directory extension "+strings.Join(names, ", ")) + "; create it on its app"
	}
	return e
}

// clip keeps a detail short enough for the ledger's 200 characters with a few words behind it.
func clip(s string) string {
	if len(s) > 120 {
		return strings.ToValidUTF8(s[:119], "") + "…"
	}
	return s
}

// forget makes the next call look again: the attribute may have been created meanwhile.
func (x *extensions) forget() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.known != nil {
		x.app, x.known = "", nil
	}
}

// remembered returns what was looked up; "" for nothing.
func (x *extensions) remembered() (app string, known map[string]string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.app, x.known
}

func (t *Tenant) extensionsApp(ctx context.Context, shorts []string) (app string, known map[string]string, err error) {
	x := &t.extensions
	if app, known = x.remembered(); app != "" {
		return app, known, nil
	}
	select {
	case x.turn <- struct{}{}:
		defer func() { <-x.turn }()
	case <-ctx.Done():
		return "", nil, ctx.Err()
	}
	if app, known = x.remembered(); app != "" { // the one before has looked
		return app, known, nil
	}
	object, app, err := t.findOwner(ctx)
	if err != nil {
		return "", nil, fmt.Errorf("look up the app that owns the custom attributes %s: %w", strings.Join(shorts, ", "), err)
	}
	properties, err := t.listExtensions(ctx, object, "name")
	if err != nil {
		return "", nil, fmt.Errorf("list the tenant's custom attributes: %w", err)
	}
	known = make(map[string]string, len(properties))
	for _, p := range properties {
		known[strings.ToLower(p.Name)] = p.Name
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.app, x.known = app, known
	return app, known, nil
}

// findOwner returns the object id and the client id, without dashes, of the b2c-extensions-app, or of the app that the
// configuration names instead.
func (t *Tenant) findOwner(ctx context.Context) (object, app string, err error) {
	type owner struct {
		ID          string `json:"id"`
		AppID       string `json:"appId"`
		DisplayName string `json:"displayName"`
	}
	var owners []owner
	filter := "startswith(displayName,'" + ownerPrefix + "')"
	if t.extensions.given != "" {
		filter = "appId eq '" + t.extensions.given + "'"
	}
	err = t.client.do(ctx, request{
		kind: applicationCall,
		info: func(ctx context.Context) (*abstractions.RequestInformation, error) {
			return t.client.applications().ToGetRequestInformation(ctx, &applications.ApplicationsRequestBuilderGetRequestConfiguration{
				QueryParameters: &applications.ApplicationsRequestBuilderGetQueryParameters{
					Filter: &filter, Select: []string{"id", "appId", "displayName"},
				},
			})
		},
		decode: func(d *decoder) error {
			owners = nil
			_, err := decodePage(d, func(d *decoder) error {
				var o owner
				if err := d.value(&o); err != nil {
					return err
				}
				owners = append(owners, o)
				return nil
			})
			return err
		},
	})
	if err != nil {
		return "", "", err
	}
	if t.extensions.given != "" && len(owners) != 1 {
		return "", "", &signup.Error{Class: signup.Systemic, Code: "attribute-missing",
			Detail: "the tenant has no app with the client id that profile.extensionsApp names; take the Application (client) ID of its " + ownerPrefix}
	}
	if len(owners) > 1 {
		owners = slices.DeleteFunc(owners, func(o owner) bool {
			return !strings.HasPrefix(o.DisplayName, ownerPrefix+". Do not modify.")
		})
	}
	if len(owners) != 1 {
		return "", "", &signup.Error{
			Class: signup.Systemic, Code: "attribute-missing",
			Detail: fmt.Sprintf("the tenant has %d apps named %s, want 1: create a custom attribute in the portal, or name the app in the settings",
				len(owners), ownerPrefix),
		}
	}
	if _, err := signup.ParseUserID(owners[0].AppID); err != nil {
		return "", "", &signup.Error{Class: signup.Transient, Code: "bad-answer", Detail: "the " + ownerPrefix + " has no client id"}
	}
	return owners[0].ID, strings.ToLower(strings.ReplaceAll(owners[0].AppID, "-", "")), nil
}

// extensionProperty is what an app adds to users.
type extensionProperty struct {
	Name        string `json:"name"`
	DataType    string `json:"dataType"`
	MultiValued bool   `json:"isMultiValued"`
}

// listExtensions reads the named properties of everything that an app, by its object id, adds to users.
func (t *Tenant) listExtensions(ctx context.Context, object string, names ...string) ([]extensionProperty, error) {
	var all, page []extensionProperty
	properties := t.client.applications().ByApplicationId(object).ExtensionProperties()
	err := t.client.read(ctx, collection{
		request: request{kind: applicationCall, info: func(ctx context.Context) (*abstractions.RequestInformation, error) {
			return properties.ToGetRequestInformation(ctx, &applications.ItemExtensionPropertiesRequestBuilderGetRequestConfiguration{
				QueryParameters: &applications.ItemExtensionPropertiesRequestBuilderGetQueryParameters{Select: names},
			})
		}},
		next: func(ctx context.Context, link string) (*abstractions.RequestInformation, error) {
			return properties.WithUrl(link).ToGetRequestInformation(ctx, nil)
		},
		each: func(d *decoder) error {
			var p extensionProperty
			if err := d.value(&p); err != nil {
				return err
			}
			page = append(page, p)
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
