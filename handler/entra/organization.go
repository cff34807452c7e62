package entra

import (
	"context"
	"fmt"
	"strings"

	abstractions "github.com/microsoft/kiota-abstractions-go"
	"github.com/microsoftgraph/msgraph-sdk-go/organization"
)

// TenantKind is what a tenant is for.
type TenantKind string

const (
	ExternalTenant  TenantKind = "external"  // Microsoft Entra External ID, for customers
	WorkforceTenant TenantKind = "workforce" // for employees and their guests
	B2CTenant       TenantKind = "b2c"       // Azure AD B2C, the predecessor of External ID
)

// Organization is the tenant's own object.
type Organization struct {
	ID      string     `json:"id"`             // the tenant's id
	Kind    TenantKind `json:"kind,omitempty"` // "" = not known: Graph shows it to nobody without Organization.Read.All
	Type    string     `json:"type,omitempty"` // what Graph calls the kind: CIAM, AAD, AAD B2C
	Domains []string   `json:"domains"`        // verified
	Initial string     `json:"initial"`        // the one of them that the tenant began with, the issuer of its local accounts
}

// Organization reads the tenant's own object.
func (t *Tenant) Organization(ctx context.Context) (Organization, error) {
	o, err := t.organization(ctx, organizationCall, "id", "tenantType", "verifiedDomains")
	if err != nil {
		return Organization{}, fmt.Errorf("read the tenant's own object: %w", err)
	}
	return o, nil
}

// organization reads properties of the tenant's own object, of which there is one (List organization).
func (t *Tenant) organization(ctx context.Context, k kind, properties ...string) (Organization, error) {
	var o Organization
	builder := organization.NewOrganizationRequestBuilderInternal(t.client.path(), t.client.adapter)
	err := t.client.do(ctx, request{
		kind: k,
		info: func(ctx context.Context) (*abstractions.RequestInformation, error) {
			return builder.ToGetRequestInformation(ctx, &organization.OrganizationRequestBuilderGetRequestConfiguration{
				QueryParameters: &organization.OrganizationRequestBuilderGetQueryParameters{Select: properties},
			})
		},
		decode: func(d *decoder) error {
			found := 0
			_, err := decodePage(d, func(d *decoder) error {
				found++
				return o.decode(d)
			})
			if err == nil && found != 1 {
				return badPage(fmt.Sprintf("the answer has %d tenants, want 1", found))
			}
			return err
		},
	})
	return o, err
}

func (o *Organization) decode(d *decoder) error {
	var g struct {
		ID      string `json:"id"`
		Type    string `json:"tenantType"`
		Domains []struct {
			Name    string `json:"name"`
			Initial bool   `json:"isInitial"`
		} `json:"verifiedDomains"`
	}
	if err := d.value(&g); err != nil {
		return err
	}
	*o = Organization{ID: strings.ToLower(g.ID), Kind: kindOfTenant(g.Type), Type: g.Type}
	for _, v := range g.Domains {
		o.Domains = append(o.Domains, v.Name)
		if v.Initial {
			o.Initial = v.Name
		}
	}
	return nil
}

// kindOfTenant knows AAD and AAD B2C from the published list; of an External ID tenant, which is not on it, the service
// says CIAM.
func kindOfTenant(tenantType string) TenantKind {
	switch strings.ToUpper(tenantType) {
	case "CIAM":
		return ExternalTenant
	case "AAD B2C":
		return B2CTenant
	case "AAD":
		return WorkforceTenant
	}
	return ""
}
