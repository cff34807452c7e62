package entra_test

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/entra"
	"signup-sync/handler/signup"
)

// foreign is a directory extension of an app that is not the owner of the custom attributes.
const foreign = "extension_0123456789abcdef0123456789abcdef_plan"

var known = func(o *entra.Options) { o.ExtensionsApp = app }

func TestUpdateIsOnePatch(t *testing.T) {
	const full = `{"@odata.type":"#microsoft.graph.user","displayName":"Zoë \"Z\" Doe\\","extension_6ea3bc85aec24b1c92ff4a117afb6621_a":"1",` +
		`"extension_6ea3bc85aec24b1c92ff4a117afb6621_b":"cus_NffrFeUfNV2Hib","extension_6ea3bc85aec24b1c92ff4a117afb6621_c":"3",` +
		`"userPrincipalName":"zoe.doe@contoso.onmicrosoft.com"}`
	tests := []struct {
		name  string
		patch signup.Patch
		want  string
	}{
		{"all", signup.Patch{DisplayName: `Zoë "Z" Doe\`, UserPrincipalName: "zoe.doe@contoso.onmicrosoft.com",
			Attributes: map[string]string{"c": "3", "a": "1", "b": "cus_NffrFeUfNV2Hib"}}, full},
		{"the name only", signup.Patch{DisplayName: "Jane"}, `{"@odata.type":"#microsoft.graph.user","displayName":"Jane"}`},
		{"every kind of attribute, and cleared ones", signup.Patch{
			Attributes: map[string]string{"extensionAttribute10": "x", "extensionAttribute2": strings.Repeat("é", 1024), foreign: "gold"},
			Clear:      []string{"a", "extensionAttribute1"}},
			`{"@odata.type":"#microsoft.graph.user","` + foreign + `":"gold","extension_6ea3bc85aec24b1c92ff4a117afb6621_a":null,` +
				`"onPremisesExtensionAttributes":{"extensionAttribute1":null,"extensionAttribute10":"x","extensionAttribute2":"` + strings.Repeat("é", 1024) + `"}}`},
		{"one cleared and nothing else", signup.Patch{Clear: []string{"a"}}, `{"@odata.type":"#microsoft.graph.user","extension_6ea3bc85aec24b1c92ff4a117afb6621_a":null}`},
		{"250 characters", signup.Patch{Attributes: map[string]string{"a": strings.Repeat("é", 250)}},
			`{"@odata.type":"#microsoft.graph.user","extension_6ea3bc85aec24b1c92ff4a117afb6621_a":"` + strings.Repeat("é", 250) + `"}`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			lost := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
			g := newGraph(t, lost, answer(204, ""))
			tenant := g.open(known)
			for range 5 {
				if err := tenant.Update(t.Context(), jane, test.patch); err != nil {
					t.Fatal(err)
				}
			}
			for i, r := range g.asked() {
				if diff := cmp.Diff(r.Body, test.want); diff != "" {
					t.Errorf("request %d: got, want:\n%s", i, diff)
				}
				got := []any{r.Method, r.Path, r.Header.Get("Content-Type"), r.Header.Get("Content-Encoding"), r.Chunked, r.ContentLength}
				want := []any{"PATCH", "/v1.0/users/" + string(jane), "application/json", "", false, int64(len(test.want))}
				if diff := cmp.Diff(got, want); diff != "" {
					t.Errorf("request %d: got, want:\n%s", i, diff)
				}
			}
			if len(g.asked()) != 6 {
				t.Errorf("got %d requests, want 6: the lost one is repeated", len(g.asked()))
			}
		})
	}
}

func TestUpdateSendsNothingThatCannotBeRight(t *testing.T) {
	g := newGraph(t, answer(204, ""))
	tenant := g.open(known)
	if err := tenant.Update(t.Context(), jane, signup.Patch{}); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		patch signup.Patch
		class signup.Class
		code  string
	}{
		{signup.Patch{Attributes: map[string]string{"a": strings.Repeat("é", 251)}}, signup.Permanent, "attribute-too-long"},
		{signup.Patch{Attributes: map[string]string{foreign: strings.Repeat("é", 251)}}, signup.Permanent, "attribute-too-long"},
		{signup.Patch{Attributes: map[string]string{"extensionAttribute1": strings.Repeat("é", 1025)}}, signup.Permanent, "attribute-too-long"},
		{signup.Patch{Attributes: map[string]string{"extensionAttribute16": "x"}}, signup.Systemic, "attribute-missing"},
		{signup.Patch{Attributes: map[string]string{"a": "x", "extension_6ea3bc85aec24b1c92ff4a117afb6621_A": "y"}}, signup.Systemic, "attribute-twice"},
		{signup.Patch{Attributes: map[string]string{"a": "x"}, Clear: []string{"extension_6ea3bc85aec24b1c92ff4a117afb6621_a"}}, signup.Systemic, "attribute-twice"},
	} {
		err := tenant.Update(t.Context(), jane, c.patch)
		if e, ok := errors.AsType[*signup.Error](err); !ok || e.Class != c.class || e.Code != c.code || len(e.Detail) > 200 {
			t.Errorf("got %v, want %v %s", err, c.class, c.code)
		}
	}
	if tenant.Calls() != 0 {
		t.Errorf("got %d calls", tenant.Calls())
	}
}

func TestUpdateErrors(t *testing.T) {
	const ext = "extension_6ea3bc85aec24b1c92ff4a117afb6621_a"
	const elsewhere = "Unable to update the specified properties for "
	fifteen := signup.Patch{Attributes: map[string]string{"extensionAttribute1": "x", foreign: "y"}}
	both := signup.Patch{UserPrincipalName: "jane.doe@contoso.com", Attributes: map[string]string{"a": "1"}}
	conflict := answer(400, `{"error":{"code":"Request_BadRequest","message":"Another object with the same value for property userPrincipalName already exists.",
		"details":[{"code":"ObjectConflict","message":"x","target":"userPrincipalName"}],"innerError":{}}}`)
	tests := []struct {
		name   string
		answer http.HandlerFunc
		patch  signup.Patch
		class  signup.Class
		code   string
		calls  int64
	}{
		{"the name is taken", conflict, both, signup.Permanent, "upn-taken", 1},
		{"the name is taken, in other words", answer(400, `{"error":{"code":"Request_BadRequest","details":[{"code":"ObjectConflict","target":"userPrincipalName"}]}}`), both, signup.Permanent, "upn-taken", 1},
		{"the name is taken, without details", refusal(400, "Request_BadRequest", "Another object with the same value for property userPrincipalName already exists."), both, signup.Permanent, "upn-taken", 1},
		{"the name is taken, 409", answer(409, `{"error":{"code":"Conflict","details":[{"code":"ObjectConflict","target":"userPrincipalName"}]}}`), both, signup.Permanent, "upn-taken", 1},
		{"another conflict", refusal(409, "Conflict", "try later"), both, signup.Transient, "conflict", 1},
		{"a domain that is not verified", refusal(400, "Request_BadRequest", "The domain portion of the userPrincipalName property is invalid. You must use one of the verified domain names in your organization."), both, signup.Permanent, "upn-invalid", 1},
		{"a name that is refused", refusal(400, "Request_BadRequest", "Invalid value specified for property 'userPrincipalName' of resource 'User'."), both, signup.Permanent, "upn-invalid", 1},
		{"no such attribute", refusal(400, "Request_BadRequest", "The following extension properties are not available: "+ext+"."), both, signup.Systemic, "attribute-missing", 1},
		{"no such attribute of another app", refusal(400, "Request_BadRequest", "The following extension properties are not available: "+foreign+"."), fifteen, signup.Systemic, "attribute-missing", 1},
		{"no such attribute, longer than ours", refusal(400, "Request_BadRequest", "The following extension properties are not available: "+ext+"bc."), both, signup.Permanent, "rejected", 1},
		{"a value that an attribute does not take", refusal(400, "Request_BadRequest", "Invalid value specified for property '"+ext+"' of resource 'User'."), both, signup.Permanent, "attribute-invalid", 1},
		{"a value that an extension attribute does not take", refusal(400, "Request_BadRequest", "Invalid value specified for property 'extensionAttribute1' of resource 'User'."), fifteen, signup.Permanent, "attribute-invalid", 1},
		{"an extension attribute with a longer name", refusal(400, "Request_BadRequest", "Invalid value specified for property 'extensionAttribute10' of resource 'User'."), fifteen, signup.Permanent, "rejected", 1},
		{"synchronised", refusal(400, "Request_BadRequest", elsewhere+"on-premises mastered Directory Sync objects or objects currently undergoing migration."), fifteen, signup.Permanent, "attribute-read-only", 1},
		{"synchronised once", refusal(400, "Request_BadRequest", elsewhere+"objects that have originated within an external service."), fifteen, signup.Permanent, "attribute-read-only", 1},
		{"synchronised, without extension attributes", refusal(400, "Request_BadRequest", elsewhere+"on-premises mastered Directory Sync objects or objects currently undergoing migration."), both, signup.Permanent, "rejected", 1},
		{"another refusal", refusal(400, "Request_BadRequest", "Invalid value specified for property 'displayName' of resource 'User'."), both, signup.Permanent, "rejected", 1},
		{"no name was sent", conflict, signup.Patch{DisplayName: "x"}, signup.Permanent, "rejected", 1},
		{"no such user", gone, both, signup.Transient, "not-found", 1},
		{"forbidden", refusal(403, "Authorization_RequestDenied", "Insufficient privileges to complete the operation."), both, signup.Systemic, "forbidden", 1},
		{"unavailable", answer(502, html), both, signup.Transient, "unavailable", 3},
		{"throttled", answer(429, "", "Retry-After", "17"), both, signup.Throttled, "throttled", 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g := newGraph(t, test.answer)
			tenant := g.open(known)
			err := tenant.Update(t.Context(), jane, test.patch)
			e, ok := errors.AsType[*signup.Error](err)
			if !ok || e.Class != test.class || e.Code != test.code {
				t.Errorf("got %v, want %v %s", err, test.class, test.code)
			}
			if tenant.Calls() != test.calls {
				t.Errorf("got %d calls, want %d", tenant.Calls(), test.calls)
			}
			if strings.Contains(err.Error(), "contoso") || len(e.Detail) > 200 {
				t.Errorf("the error says too much: %v", err)
			}
		})
	}
}

// Graph answers 3,000 writes in 150 s for an app and tenant; those of any second stay within a second's share.
func TestWritesKeepTheirPace(t *testing.T) {
	g := newGraph(t, answer(204, ""))
	tenant := g.open()
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if err := tenant.Update(t.Context(), jane, signup.Patch{DisplayName: "x"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	var longest int64
	for _, d := range g.clock.slept {
		longest = max(longest, int64(d.Seconds()))
	}
	if longest < 1 || len(g.clock.slept) > 80 {
		t.Errorf("got %d waits of 100, the longest %d s", len(g.clock.slept), longest)
	}
}
