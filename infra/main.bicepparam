// The parameters, from the environment, so that this file is the same for each of several installations. The tenant must be set.
// main.bicep describes them all.
using './main.bicep'

param entraTenantId = readEnvironmentVariable('ENTRA_TENANT_ID')
param entraClientId = readEnvironmentVariable('ENTRA_CLIENT_ID', '')
param alertEmails = filter(split(readEnvironmentVariable('ALERT_EMAILS', ''), ','), address => !empty(address))
param operatorId = readEnvironmentVariable('OPERATOR_ID', '')
param operatorType = readEnvironmentVariable('OPERATOR_TYPE', 'User')

// What signup-sync.yaml reads by ${NAME}: secrets, by their names in the vault …
param vaultSettings = {
  STRIPE_API_KEY: 'stripe-api-key'
  WELCOME_SECRET: 'welcome-secret'
  CUSTOMERS_DSN: 'customers-dsn'
}

// … and what is no secret.
param settings = {
  STRIPE_URL: readEnvironmentVariable('STRIPE_URL', 'https://api.stripe.com')
  WELCOME_URL: readEnvironmentVariable('WELCOME_URL', '')
}
