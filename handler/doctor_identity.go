package main

import (
	"context"
	"fmt"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"signup-sync/handler/identity"
)

var identityExaminations = []examination{
	{"own", examineOwn},
	{"token", examineToken},
	{"certificate", examineCertificate},
}

// examineOwn says who this process is in Azure, and whether it gets a token where the vault or the ledger wants one.
func examineOwn(ctx context.Context, p *patient) []finding {
	who := "your own Azure CLI login; what the app's managed identity may do in Azure is not shown by this, but by watermarks that move"
	if p.getenv("IDENTITY_ENDPOINT") != "" {
		who = "the app's managed identity, the system-assigned one"
		if p.app.env.Identity != "" {
			who = "the app's managed identity, client id " + p.app.env.Identity
		}
	}
	if err := p.proven(ctx); err != nil {
		return []finding{broken("own", p.ownFix(errorCode(err)), err)}
	}
	return []finding{good("own", "%s", who)}
}

// proven is why this process is nobody in Azure; nil if it is, or need not be.
func (p *patient) proven(ctx context.Context) error {
	var scopes []string
	if p.app.env.Credential == identity.Certificate {
		scopes = append(scopes, identity.VaultScope(p.app.env.KeyVault))
	}
	if p.usesIdentity() && p.app.env.Storage.Identity == p.app.env.Identity {
		scopes = append(scopes, "https://storage.azure.com/.default")
	}
	_, err := p.proof.get(ctx, func(ctx context.Context) (bool, error) {
		for _, scope := range scopes {
			if _, err := p.app.identity.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{scope}}); err != nil {
				return false, err
			}
		}
		return true, nil
	})
	return err
}

// nobody is a line that cannot be answered by a process that is nobody in Azure.
func nobody(name string, err error) []finding {
	return []finding{notAsked(name, "Mend identity, own, first.", "this program has no identity in Azure (%s)", reasonOf(err))}
}

// examineToken gets the app a token, and says how long that took.
func examineToken(ctx context.Context, p *patient) []finding {
	grant, err := p.grant(ctx)
	if err != nil && errorCode(err) == "key-vault" {
		if err := p.proven(ctx); err != nil {
			return nobody("token", err)
		}
		return []finding{fail("token", p.tokenFix(errorCode(err)), "%s", oneLine(err))}
	}
	took := p.tokenTook.Round(time.Millisecond)
	switch {
	case err != nil && errorCode(err) == tokenUnreadable:
		return []finding{good("token", "the app %s got a token in %v; what it says cannot be read", p.app.env.Client, took)}
	case err != nil:
		return []finding{broken("token", p.tokenFix(errorCode(err)), err)}
	case grant.Tenant != p.app.env.Tenant || grant.Client != p.app.env.Client:
		return []finding{fail("token", setSetting("ENTRA_TENANT_ID", "TENANT")+"\n"+setSetting("ENTRA_CLIENT_ID", "CLIENT"), "the token is for the app %s in the tenant %s, which are not those of the settings", grant.Client, grant.Tenant)}
	}
	return []finding{good("token", "the app %s got a token for the tenant in %v", p.app.env.Client, took)}
}

// tokenFix says what to do about an app that gets no token; the codes are those of Entra's token endpoint, and this
// program's own.
func (p *patient) tokenFix(code string) string {
	client := p.app.env.Client
	registration := fmt.Sprintf("Entra admin center > App registrations > All applications > %s", client)
	switch code {
	case "aadsts700016", "aadsts70001", "aadsts700011", "aadsts90002", "aadsts900023":
		return "Entra admin center, in the External ID tenant > App registrations > All applications > the app > Overview: Directory (tenant) ID, Application (client) ID\n" +
			setSetting("ENTRA_TENANT_ID", "TENANT") + "\n" + setSetting("ENTRA_CLIENT_ID", "CLIENT") + "\nor, if the app is registered in another tenant and these are right:\n" + p.consent()
	case "aadsts700024", "aadsts500133":
		return setClock
	case "aadsts7000215", "aadsts7000222":
		return registration + " > Certificates & secrets > New client secret\n" + setSetting("ENTRA_CLIENT_SECRET", vaultReference)
	case "aadsts700027", "aadsts700030", "aadsts50012", "aadsts50013", "aadsts50027":
		return p.registerCertificate("")
	case "aadsts7000214":
		return p.makeCertificate() + "\n" + p.registerCertificate("")
	case "aadsts65001", "aadsts650056", "aadsts650057", "aadsts90094", "aadsts7000229":
		return p.consent()
	case "aadsts7000112":
		return p.inTenant(fmt.Sprintf("az ad sp update --id %s --set accountEnabled=true", client))
	case "aadsts500014":
		return p.inTenant(fmt.Sprintf("az ad sp update --id %s --set accountEnabled=true", graphApp))
	case "aadsts70025", "aadsts700211", "aadsts700212", "aadsts700213", "aadsts7002138", "aadsts700236":
		return registration + " > Certificates & secrets > Federated credentials > Managed identity\nor a certificate instead:\n" + toCertificate
	case "aadsts90038", "aadsts900382", "aadsts900432", "aadsts500011", "aadsts70011", "aadsts1002012":
		return setSetting("ENTRA_AUTHORITY", defaultAuthority) + "\n" + setSetting("GRAPH_URL", defaultGraph)
	case "no-identity", "no-login", "no-az":
		return p.ownFix(code)
	case "no-token":
		return reach(p.app.env.Authority + "/" + p.app.env.Tenant + "/v2.0/.well-known/openid-configuration")
	case "key-vault":
		return "Mend identity, certificate, first."
	}
	return "Do as the message says, and run the doctor again; a code that begins aadsts is explained at https://login.microsoftonline.com/error"
}

// consent is how an administrator of the tenant lets the app in.
func (p *patient) consent() string {
	return fmt.Sprintf("Open %s/%s/adminconsent?client_id=%s as an administrator of the tenant, and accept.", p.app.env.Authority, p.app.env.Tenant, p.app.env.Client)
}

// registerCertificate are the commands that tell the app registration of a version of the certificate; "" is the newest.
func (p *patient) registerCertificate(version string) string {
	if version != "" {
		version = " --version " + version
	}
	return fmt.Sprintf("az keyvault certificate download --vault-name %s --name %s%s --encoding PEM --file certificate.pem\n", p.vaultName(), p.app.env.Certificate, version) +
		p.inTenant(fmt.Sprintf("az ad app credential reset --id %s --cert @certificate.pem --append", p.app.env.Client))
}
