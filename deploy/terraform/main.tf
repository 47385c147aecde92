# What docs/howto/aks.md makes by hand in its steps 2 and 3: the storage account, the managed identity, its roles, and its
# role in PostgreSQL. The cluster, the registry, PostgreSQL and their networks are there already.

terraform {
  required_version = ">= 1.9"
  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = "~> 4.55"
    }
    # Configured by whoever calls the module: as the server's Entra administrator, in the database `postgres`.
    postgresql = {
      source  = "cyrilgdn/postgresql"
      version = "~> 1.26"
    }
  }
}

locals {
  containers = toset(["archive", "dagster-logs"])
  # Service accounts: of code server, runs and CronJobs; of the daemon and the webserver.
  service_accounts = toset(["event-archive", "dagster"])
}

# --- Who the pods are ------------------------------------------------------------------------------------------------

resource "azurerm_user_assigned_identity" "pipeline" {
  name                = "event-archive"
  resource_group_name = var.resource_group_name
  location            = var.location
  tags                = var.tags
}

resource "azurerm_federated_identity_credential" "pipeline" {
  for_each            = local.service_accounts
  name                = each.key
  resource_group_name = var.resource_group_name
  parent_id           = azurerm_user_assigned_identity.pipeline.id
  issuer              = var.oidc_issuer_url
  subject             = "system:serviceaccount:${var.namespace}:${each.key}"
  audience            = ["api://AzureADTokenExchange"]
}

resource "azurerm_role_assignment" "pull" {
  scope                            = var.registry_id
  role_definition_name             = "AcrPull"
  principal_id                     = var.kubelet_principal_id
  principal_type                   = "ServicePrincipal"
  skip_service_principal_aad_check = true
}

# --- Where the files are ---------------------------------------------------------------------------------------------

resource "azurerm_storage_account" "lake" {
  name                            = var.storage_account_name
  resource_group_name             = var.resource_group_name
  location                        = var.location
  account_kind                    = "StorageV2"
  account_tier                    = "Standard"
  account_replication_type        = var.replication_type
  is_hns_enabled                  = true
  min_tls_version                 = "TLS1_2"
  allow_nested_items_to_be_public = false
  # No account key: the identity is the only way in.
  shared_access_key_enabled     = false
  local_user_enabled            = false
  public_network_access_enabled = length(var.subnet_ids) > 0
  tags                          = var.tags

  network_rules {
    default_action             = "Deny"
    bypass                     = ["AzureServices"]
    virtual_network_subnet_ids = var.subnet_ids
  }

  # A file that somebody deletes by mistake can be had back for so long.
  blob_properties {
    delete_retention_policy {
      days = 30
    }
    container_delete_retention_policy {
      days = 30
    }
  }

  lifecycle {
    prevent_destroy = true
  }
}

resource "azurerm_storage_container" "lake" {
  for_each              = local.containers
  name                  = each.key
  storage_account_id    = azurerm_storage_account.lake.id
  container_access_type = "private"

  lifecycle {
    prevent_destroy = true
  }
}

resource "azurerm_role_assignment" "files" {
  for_each             = azurerm_storage_container.lake
  scope                = each.value.id
  role_definition_name = "Storage Blob Data Contributor"
  principal_id         = azurerm_user_assigned_identity.pipeline.principal_id
  principal_type       = "ServicePrincipal"
}

# For the webserver's links to what runs printed.
resource "azurerm_role_assignment" "links" {
  scope                = azurerm_storage_account.lake.id
  role_definition_name = "Storage Blob Delegator"
  principal_id         = azurerm_user_assigned_identity.pipeline.principal_id
  principal_type       = "ServicePrincipal"
}

# Never the archive tier, and no rule that deletes: see "The cool tier" in docs/howto/aks.md.
resource "azurerm_storage_management_policy" "lake" {
  storage_account_id = azurerm_storage_account.lake.id

  rule {
    name    = "archive-to-cool"
    enabled = true

    filters {
      prefix_match = ["archive/titan-pulse-event-archive/"]
      blob_types   = ["blockBlob"]
    }

    actions {
      base_blob {
        tier_to_cool_after_days_since_modification_greater_than = 30
      }
    }
  }
}

# The Blob endpoint alone is used.
resource "azurerm_private_endpoint" "lake" {
  count               = var.private_endpoint_subnet_id == null ? 0 : 1
  name                = "${var.storage_account_name}-blob"
  resource_group_name = var.resource_group_name
  location            = var.location
  subnet_id           = var.private_endpoint_subnet_id
  tags                = var.tags

  private_service_connection {
    name                           = "blob"
    private_connection_resource_id = azurerm_storage_account.lake.id
    subresource_names              = ["blob"]
    is_manual_connection           = false
  }

  private_dns_zone_group {
    name                 = "blob"
    private_dns_zone_ids = [var.private_dns_zone_id]
  }
}

# --- The role in PostgreSQL ------------------------------------------------------------------------------------------

resource "postgresql_role" "pipeline" {
  name  = azurerm_user_assigned_identity.pipeline.name
  login = true
}

# What makes the role the identity, as pgaadauth_create_principal does.
resource "postgresql_security_label" "pipeline" {
  object_type    = "role"
  object_name    = postgresql_role.pipeline.name
  label_provider = "pgaadauth"
  label          = "aadauth,oid=${azurerm_user_assigned_identity.pipeline.principal_id},type=service"
}

resource "postgresql_grant" "temporary" {
  role        = postgresql_role.pipeline.name
  database    = var.database
  object_type = "database"
  privileges  = ["CONNECT", "TEMPORARY"]
}

resource "postgresql_grant" "schema" {
  role        = postgresql_role.pipeline.name
  database    = var.database
  schema      = var.table_schema
  object_type = "schema"
  privileges  = ["USAGE"]
}

resource "postgresql_grant" "table" {
  role        = postgresql_role.pipeline.name
  database    = var.database
  schema      = var.table_schema
  object_type = "table"
  objects     = [var.table]
  privileges  = ["SELECT", "DELETE"]
}
