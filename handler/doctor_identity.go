package main

import (
	"context"
	"fmt"
	"time"
)

var identityExaminations = []examination{
	{"own", examineOwn},
	{"token", examineToken},
	{"certificate", examineCertificate},
}

// examineOwn says who this process is in Azure.
func examineOwn(_ context.Context, p *patient) []finding {
	if p.getenv("IDENTITY_ENDPOINT") != "" {
		who := "the system-assigned one"
		if p.app.env.Identity != "" {
			who = "client id " + p.app.env.Identity
		}
		return []finding{good("own", "the app's managed identity, %s", who)}
	}
	return []finding{good("own", "your own Azure CLI login; what the app's managed identity may do in Azure is not shown by this, but by watermarks that move")}
}

// examineToken gets the app a token, and says how long that took.
func examineToken(ctx context.Context, p *patient) []finding {
	grant, err := p.grant(ctx)
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
			setSetting("ENTRA_TENANT_ID", "TENANT") + "\n" + setSetting("ENTRA_CLIENT_ID", "CLIENT")
	case "aadsts7000215", "aadsts7000222":
		return registration + " > Certificates & secrets > New client secret\n" + setSetting("ENTRA_CLIENT_SECRET", vaultReference)
	case "aadsts700027", "aadsts7000214":
		return p.registerCertificate("")
	case "aadsts65001", "aadsts650056", "aadsts650057", "aadsts90094", "aadsts500011", "aadsts500014", "aadsts7000112":
		return fmt.Sprintf("Open %s/%s/adminconsent?client_id=%s as an administrator of the tenant, and accept; the app must not be disabled under Enterprise applications.", p.app.env.Authority, p.app.env.Tenant, client)
	case "aadsts700211", "aadsts700212", "aadsts700213", "aadsts700236":
		return registration + " > Certificates & secrets > Federated credentials > Managed identity\nor a certificate instead:\n" + setSetting("ENTRA_CREDENTIAL", "certificate")
	case "aadsts90038", "aadsts900382", "aadsts900432":
		return setSetting("ENTRA_AUTHORITY", defaultAuthority) + "\n" + setSetting("GRAPH_URL", defaultGraph)
	case "no-identity":
		return "az functionapp identity assign --name APP --resource-group GROUP --identities IDENTITY\n" + setSetting("AZURE_CLIENT_ID", "CLIENT_ID_OF_THE_IDENTITY") + "\nOutside Azure: az login"
	case "no-login", "no-az":
		return "az login"
	case "key-vault":
		return fmt.Sprintf("az role assignment create --assignee IDENTITY --role \"ROLE\" --scope \"$(az keyvault show --name %[1]s --query id -o tsv)\"\n"+
			"az keyvault certificate list-versions --vault-name %[1]s --name %[2]s", p.vaultName(), p.app.env.Certificate)
	}
	return "Do as the message says, and run the doctor again; a code that begins aadsts is explained at https://login.microsoftonline.com/error"
}

// registerCertificate are the commands that tell the app registration of a version of the certificate; "" is the newest.
func (p *patient) registerCertificate(version string) string {
	if version != "" {
		version = " --version " + version
	}
	return fmt.Sprintf("az keyvault certificate download --vault-name %s --name %s%s --encoding PEM --file certificate.pem\n", p.vaultName(), p.app.env.Certificate, version) +
		p.inTenant(fmt.Sprintf("az ad app credential reset --id %s --cert @certificate.pem --append", p.app.env.Client))
}
