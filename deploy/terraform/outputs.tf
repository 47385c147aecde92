output "client_id" {
  description = "The identity's client id, for deploy/kubernetes/serviceaccount.yaml and deploy/helm/values.yaml."
  value       = azurerm_user_assigned_identity.pipeline.client_id
}

output "account_url" {
  description = "AZURE_STORAGE_ACCOUNT_URL."
  value       = trimsuffix(azurerm_storage_account.lake.primary_blob_endpoint, "/")
}
