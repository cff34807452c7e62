package main

import (
	"cmp"
	"fmt"
	"regexp"

	"signup-sync/handler/identity"
)

// What to do about access in Azure: who is to get which role, on what.

// assignee is whom the doctor asks as in Azure, for `az role assignment create`.
func (p *patient) assignee() string {
	if p.getenv("IDENTITY_ENDPOINT") != "" {
		return cmp.Or(p.getenv("AZURE_CLIENT_ID"), "IDENTITY")
	}
	return `"$(az ad signed-in-user show --query id -o tsv)"`
}

// whose is that one in words.
func (p *patient) whose() string {
	if p.getenv("IDENTITY_ENDPOINT") != "" {
		return "the app's identity"
	}
	return "your login"
}

// assignRole is the command that gives that one a role.
func (p *patient) assignRole(role, scope string) string { return assign(p.assignee(), role, scope) }

func assign(assignee, role, scope string) string {
	return fmt.Sprintf(`az role assignment create --assignee %s --role "%s" --scope %s`, assignee, role, scope)
}

// ofVault is the scope of a vault.
func ofVault(name string) string {
	return fmt.Sprintf(`"$(az keyvault show --name %s --query id -o tsv)"`, name)
}

// vaultRoles are the commands that let the certificate be used, whose key stays in the vault or not.
func (p *patient) vaultRoles(staysInVault bool) string {
	scope := ofVault(p.vaultName())
	if staysInVault {
		return p.assignRole(identity.CertificateUser, scope) + "\n" + p.assignRole(identity.CryptoUser, scope)
	}
	return p.assignRole(identity.SecretsUser, scope)
}

// ownFix says what to do where this process is nobody in Azure.
func (p *patient) ownFix(code string) string {
	switch {
	case p.getenv("IDENTITY_ENDPOINT") != "":
		return "az functionapp identity assign --name APP --resource-group GROUP --identities IDENTITY_RESOURCE_ID\n" + setSetting("AZURE_CLIENT_ID", "CLIENT_ID_OF_THE_IDENTITY")
	case code == "no-az":
		return "Install the Azure CLI: https://aka.ms/azure-cli\naz login"
	}
	return "az login\n" + backToSubscription
}

// The parts of a Key Vault reference, in both of its forms.
var (
	referredVault  = regexp.MustCompile(`(?i)(?:https://|VaultName=)([0-9a-z-]{3,24})[.;)]`)
	referredSecret = regexp.MustCompile(`(?i)(?:/secrets/|SecretName=)([0-9a-z-]{1,127})`)
)

// partOf is what a pattern finds in a reference, or a word for the reader to replace.
func partOf(reference string, pattern *regexp.Regexp, word string) string {
	if m := pattern.FindStringSubmatch(reference); m != nil {
		return m[1]
	}
	return word
}

// storeSecret is how a secret gets into the vault.
func storeSecret(vault, name string) string {
	return "Write the secret, and no end of line, into FILE:\n" + fmt.Sprintf("az keyvault secret set --vault-name %s --name %s --encoding utf-8 --file FILE\n", vault, name)
}

// restartApp lets the app read its references again, which it would else do within a day.
const restartApp = "az functionapp restart --name APP --resource-group GROUP"

// storageRole is the role that the ledger takes on its account.
func (p *patient) storageRole() string {
	return onAccount(p.assignee(), "Storage Table Data Contributor", cmp.Or(p.getenv("AzureWebJobsStorage__accountName"), "ACCOUNT"))
}

// onAccount is the command that gives somebody a role on a storage account.
func onAccount(assignee, role, account string) string {
	return assign(assignee, role, fmt.Sprintf(`"$(az storage account show --name %s --query id -o tsv)"`, account))
}

// usesIdentity reports that the ledger's account is reached without a key.
func (p *patient) usesIdentity() bool {
	ledger := p.getenv("LEDGER")
	return p.getenv("AzureWebJobsStorage") == "" && (ledger == "" || ledger == "tables")
}
