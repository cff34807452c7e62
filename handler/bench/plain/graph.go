package main

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	kauth "github.com/microsoft/kiota-authentication-azure-go"
	kjson "github.com/microsoft/kiota-serialization-json-go"
	core "github.com/microsoftgraph/msgraph-sdk-go-core"
	"github.com/microsoftgraph/msgraph-sdk-go/auditlogs"
	"github.com/microsoftgraph/msgraph-sdk-go/models"
	"github.com/microsoftgraph/msgraph-sdk-go/users"
)

// graph is the Graph SDK in its ordinary use. The service client itself is left out, since to import it is to compile all
// 20,000 files of the SDK; what it would make, the adapter with the default middleware and these two builders, is here.
type graph struct {
	audits    *auditlogs.DirectoryAuditsRequestBuilder
	users     *users.UsersRequestBuilder
	extension string // how the names of custom attributes begin
}

// user is what is taken from the user's record.
type user struct {
	id, email, givenName, surname string
	attributes                    map[string]string
}

func openGraph(getenv func(string) string) (*graph, error) {
	root, err := url.Parse(getenv("GRAPH_URL"))
	if err != nil {
		return nil, err
	}
	credential, err := azidentity.NewClientSecretCredential(getenv("ENTRA_TENANT_ID"), getenv("ENTRA_CLIENT_ID"), getenv("ENTRA_CLIENT_SECRET"),
		&azidentity.ClientSecretCredentialOptions{DisableInstanceDiscovery: true, ClientOptions: azcore.ClientOptions{
			Cloud: cloud.Configuration{ActiveDirectoryAuthorityHost: getenv("ENTRA_AUTHORITY")}}})
	if err != nil {
		return nil, err
	}
	auth, err := kauth.NewAzureIdentityAuthenticationProviderWithScopesAndValidHosts(credential,
		[]string{"https://graph.microsoft.com/.default"}, []string{root.Hostname()})
	if err != nil {
		return nil, err
	}
	adapter, err := core.NewGraphRequestAdapterBaseWithParseNodeFactoryAndSerializationWriterFactory(auth,
		core.GraphClientOptions{GraphServiceVersion: "v1.0", GraphServiceLibraryVersion: "1.89.0"}, kjson.NewJsonParseNodeFactory(), kjson.NewJsonSerializationWriterFactory())
	if err != nil {
		return nil, err
	}
	adapter.SetBaseUrl(root.String() + "/v1.0")
	return &graph{
		audits:    auditlogs.NewDirectoryAuditsRequestBuilderInternal(map[string]string{"baseurl": adapter.GetBaseUrl()}, adapter),
		users:     users.NewUsersRequestBuilderInternal(map[string]string{"baseurl": adapter.GetBaseUrl()}, adapter),
		extension: getenv("EXTENSION_PREFIX"),
	}, nil
}

// added are the users of whom the audit log says that they were added since, in its order, each once.
func (g *graph) added(ctx context.Context, since time.Time) (ids []string, err error) {
	filter := "category eq 'UserManagement' and activityDisplayName eq 'Add user' and activityDateTime ge " + since.UTC().Format("2006-01-02T15:04:05Z")
	page, err := g.audits.Get(ctx, &auditlogs.DirectoryAuditsRequestBuilderGetRequestConfiguration{
		QueryParameters: &auditlogs.DirectoryAuditsRequestBuilderGetQueryParameters{Filter: &filter}})
	for err == nil {
		for _, record := range page.GetValue() {
			if result := record.GetResult(); result == nil || *result != models.SUCCESS_OPERATIONRESULT {
				continue
			}
			for _, target := range record.GetTargetResources() {
				if id := target.GetId(); id != nil && !slices.Contains(ids, *id) {
					ids = append(ids, *id)
				}
			}
		}
		next := page.GetOdataNextLink()
		if next == nil {
			return ids, nil
		}
		page, err = g.audits.WithUrl(*next).Get(ctx, nil)
	}
	return nil, err
}

func (g *graph) user(ctx context.Context, id string) (user, error) {
	wanted := []string{"id", "givenName", "surname", "mail", "identities"}
	for _, name := range attributes {
		wanted = append(wanted, g.extension+name)
	}
	found, err := g.users.ByUserId(id).Get(ctx, &users.UserItemRequestBuilderGetRequestConfiguration{
		QueryParameters: &users.UserItemRequestBuilderGetQueryParameters{Select: wanted}})
	if err != nil {
		return user{}, err
	}
	text := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	u := user{id: id, email: text(found.GetMail()), givenName: text(found.GetGivenName()), surname: text(found.GetSurname()), attributes: map[string]string{}}
	for _, i := range found.GetIdentities() {
		if text(i.GetSignInType()) == "emailAddress" {
			u.email = text(i.GetIssuerAssignedId())
		}
	}
	for _, name := range attributes {
		if v, ok := found.GetAdditionalData()[g.extension+name].(*string); ok {
			u.attributes[name] = text(v)
		}
	}
	if u.email == "" {
		return user{}, fmt.Errorf("the user has no address")
	}
	return u, nil
}

// attributes are the custom attributes for the accounts' ids.
var attributes = []string{"stripeCustomerId", "mailchimpId", "salesforceId"}

func (g *graph) patch(ctx context.Context, u user, made map[string]string) error {
	name, more := u.givenName+" "+u.surname, map[string]any{}
	for attribute, account := range made {
		more[g.extension+attribute] = account
	}
	change := models.NewUser()
	change.SetDisplayName(&name)
	change.SetAdditionalData(more)
	_, err := g.users.ByUserId(u.id).Patch(ctx, change, nil)
	return err
}
