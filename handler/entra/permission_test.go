package entra_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/entra"
	"signup-sync/handler/signup"
)

func names(all []entra.Permission) (names []string) {
	for _, p := range all {
		names = append(names, p.Name)
	}
	return names
}

func TestLeastPermissionsOfAConfiguration(t *testing.T) {
	tests := []struct {
		name  string
		needs entra.Needs
		want  []string
	}{
		{"the directory alone", entra.Needs{}, []string{"User.Read.All"}},
		{"the audit log", entra.Needs{Audit: true}, []string{"AuditLog.Read.All", "User.Read.All"}},
		{"both logs need one permission", entra.Needs{Audit: true, SignUps: true}, []string{"AuditLog.Read.All", "User.Read.All"}},
		{"to write includes to read", entra.Needs{Audit: true, Profile: true}, []string{"AuditLog.Read.All", "User.ReadWrite.All"}},
		{"the tenant's domains come with the users", entra.Needs{Profile: true, Domain: true}, []string{"User.ReadWrite.All"}},
		{"custom attributes that are read only", entra.Needs{LookUp: true}, []string{"User.Read.All", "Application.Read.All"}},
		{"groups", entra.Needs{Groups: true}, []string{"User.Read.All", "GroupMember.ReadWrite.All"}},
		{"everything", entra.Needs{Audit: true, SignUps: true, Profile: true, LookUp: true, Domain: true, Groups: true, AccessPackages: true},
			[]string{"AuditLog.Read.All", "User.ReadWrite.All", "Application.Read.All", "GroupMember.ReadWrite.All", "EntitlementManagement.ReadWrite.All"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := entra.Least(test.needs)
			if diff := cmp.Diff(names(got), test.want); diff != "" {
				t.Errorf("got, want:\n%s", diff)
			}
			for _, p := range got {
				if _, err := signup.ParseUserID(p.ID); err != nil || len(p.For) == 0 {
					t.Errorf("%s has the id %q and is for %q", p.Name, p.ID, p.For)
				}
				if slices.Contains(p.Or, p.Name) {
					t.Errorf("%s includes itself: %q", p.Name, p.Or)
				}
			}
		})
	}
}

// TestPermissionsAreForEachOfTheirUses sees that one that stands for another is for what that was for.
func TestPermissionsAreForEachOfTheirUses(t *testing.T) {
	for _, p := range entra.Least(entra.Needs{Audit: true, SignUps: true, Profile: true, Domain: true}) {
		want := map[string]int{"AuditLog.Read.All": 2, "User.ReadWrite.All": 4}[p.Name]
		if len(p.For) != want {
			t.Errorf("%s is for %d things, want %d: %q", p.Name, len(p.For), want, p.For)
		}
	}
}

func TestRolesAreComparedWithTheLeastSet(t *testing.T) {
	audit := entra.Needs{Audit: true}
	tests := []struct {
		name    string
		needs   entra.Needs
		roles   []string
		missing []string
		excess  []entra.Excess
	}{
		{"just what is needed", audit, []string{"User.Read.All", "AuditLog.Read.All"}, nil, nil},
		{"nothing granted", audit, nil, []string{"AuditLog.Read.All", "User.Read.All"}, nil},
		{"one is missing", entra.Needs{Audit: true, Profile: true}, []string{"AuditLog.Read.All", "User.Read.All"},
			[]string{"User.ReadWrite.All"}, []entra.Excess{{Role: "User.Read.All"}}},
		{"writing where reading would do", audit, []string{"AuditLog.Read.All", "User.ReadWrite.All"}, nil,
			[]entra.Excess{{Role: "User.ReadWrite.All", Instead: []string{"User.Read.All"}}}},
		{"one for all", audit, []string{"Directory.Read.All"}, nil,
			[]entra.Excess{{Role: "Directory.Read.All", Instead: []string{"AuditLog.Read.All", "User.Read.All"}}}},
		{"one for all, beside those that would do", audit, []string{"Directory.Read.All", "AuditLog.Read.All", "User.Read.All"}, nil,
			[]entra.Excess{{Role: "Directory.Read.All", Instead: []string{"AuditLog.Read.All", "User.Read.All"}}}},
		{"the sign-up log takes nothing for its own", entra.Needs{Audit: true, SignUps: true}, []string{"Directory.Read.All"},
			[]string{"AuditLog.Read.All"}, []entra.Excess{{Role: "Directory.Read.All", Instead: []string{"User.Read.All"}}}},
		{"what nobody asked for", audit, []string{"Mail.Read", "User.Read.All", "AuditLog.Read.All", "Mail.Read"}, nil, []entra.Excess{{Role: "Mail.Read"}}},
		{"the keys to the tenant", audit, []string{"User.Read.All", "AuditLog.Read.All", "RoleManagement.ReadWrite.Directory"}, nil,
			[]entra.Excess{{Role: "RoleManagement.ReadWrite.Directory", Danger: "the app can make itself Global Administrator"}}},
		{"a group's owner", entra.Needs{Groups: true}, []string{"User.Read.All", "Group.ReadWrite.All"}, nil,
			[]entra.Excess{{Role: "Group.ReadWrite.All", Instead: []string{"GroupMember.ReadWrite.All"}}}},
		{"who may only read members", entra.Needs{Groups: true}, []string{"User.Read.All", "GroupMember.Read.All"},
			[]string{"GroupMember.ReadWrite.All"}, []entra.Excess{{Role: "GroupMember.Read.All"}}},
		{"what a person should read", audit, []string{"User.Read.All", "AuditLog.Read.All", "Policy.Read.All"}, nil, []entra.Excess{{Role: "Policy.Read.All"}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			missing, excess := entra.Compare(entra.Least(test.needs), test.roles)
			if diff := cmp.Diff(names(missing), test.missing); diff != "" {
				t.Errorf("missing: got, want:\n%s", diff)
			}
			if diff := cmp.Diff(excess, test.excess); diff != "" {
				t.Errorf("superfluous: got, want:\n%s", diff)
			}
		})
	}
}

func TestAnExcessSaysWhatWouldDo(t *testing.T) {
	e := entra.Excess{Role: "Application.ReadWrite.All", Instead: []string{"Application.Read.All"}, Danger: "the app can act as every other app of the tenant"}
	if got, want := e.String(), "Application.ReadWrite.All, by which the app can act as every other app of the tenant: Application.Read.All would do"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
