# What deployer writes to terraform.tfvars.json, and this provider's own options (`image`).

variable "environment" {
  description = "The environment's name."
  type        = string
}

variable "hosts" {
  description = "The machines by name: CPUs, memory in MiB, disk in GiB, and forwarded ports (host 0: any free one)."
  type = map(object({
    cpus   = optional(number, 2)
    memory = optional(number, 1024)
    disk   = optional(number, 8)
    ports  = optional(list(object({ host = number, machine = number })), [])
  }))

  # A name becomes a folder and the guest's host name.
  validation {
    condition     = alltrue([for name in keys(var.hosts) : can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", name))])
    error_message = "A host's name is a-z, 0-9 and inner hyphens, at most 63 characters."
  }
}

variable "user_data" {
  description = "cloud-config text for each host; a host without one gets the user `deployer` and the key below."
  type        = map(string)
  default     = {}
  sensitive   = true
}

variable "ssh_public_key" {
  description = "The key that may log in."
  type        = string
}

variable "image" {
  description = "Path of a disk image of your own (with cloud-init inside); empty for the cached Debian 12."
  type        = string
  default     = ""
}
