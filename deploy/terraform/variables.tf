variable "resource_group_name" {
  description = "The resource group that everything is made in."
  type        = string
}

variable "location" {
  description = "The region, such as westeurope."
  type        = string
}

variable "storage_account_name" {
  description = "The storage account's name: 3 to 24 lower-case letters and digits, and nobody else's."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]{3,24}$", var.storage_account_name))
    error_message = "A storage account's name is 3 to 24 lower-case letters and digits."
  }
}

variable "replication_type" {
  description = "How often the files are kept: GZRS in three zones of the region and in another region, ZRS in the zones alone."
  type        = string
  default     = "GZRS"
}

variable "namespace" {
  description = "The namespace of the pods."
  type        = string
  default     = "events"
}

variable "oidc_issuer_url" {
  description = "The cluster's OIDC issuer."
  type        = string
}

variable "kubelet_principal_id" {
  description = "The object id of the cluster's kubelet identity, which pulls the image."
  type        = string
}

variable "registry_id" {
  description = "The resource id of the container registry."
  type        = string
}

variable "subnet_ids" {
  description = "Subnets that may reach the storage account by their service endpoint; with none it is reached by a private endpoint alone."
  type        = list(string)
  default     = []
}

variable "private_endpoint_subnet_id" {
  description = "Where the storage account's private endpoint lies; null for none."
  type        = string
  default     = null
}

variable "private_dns_zone_id" {
  description = "The zone privatelink.blob.core.windows.net, where there is a private endpoint."
  type        = string
  default     = null
}

variable "database" {
  description = "The events database."
  type        = string
  default     = "events"
}

variable "table_schema" {
  description = "The schema of the table that is archived."
  type        = string
  default     = "public"
}

variable "table" {
  description = "The table that is archived."
  type        = string
  default     = "Event"
}

variable "tags" {
  description = "Tags of everything that is made in Azure."
  type        = map(string)
  default     = {}
}
