# Machines for tests: one systemd container for each host, with real cloud-init and sshd, up in seconds. Needs root.
# It keeps the provider contract, and fails on demand.

terraform {
  required_version = ">= 1.4"
}

variable "environment" {
  type = string
}

variable "hosts" {
  type = map(object({
    cpus   = optional(number)
    memory = optional(number)
    disk   = optional(number)
    ports  = optional(list(object({ host = number, machine = number })), [])
  }))
}

variable "user_data" {
  type      = map(string)
  default   = {}
  sensitive = true
}

variable "ssh_public_key" {
  type = string
}

variable "ssh_user" {
  type    = string
  default = "deployer"
}

variable "machines" {
  description = "Where the machines' directories are."
  type        = string
  default     = "/tmp/deployer-test-machines"
}

variable "owner" {
  description = "Pid of the test process; when it has gone, the next run removes the machines. 0: nobody's."
  type        = number
  default     = 0
}

variable "apply_fails" {
  description = "Hosts that cannot be created: the apply ends with an error, and the resource is tainted."
  type        = list(string)
  default     = []
}

variable "apply_delay" {
  description = "Seconds that the creation of each machine takes longer; for interrupts and kills."
  type        = number
  default     = 0
}

variable "ssh" {
  description = "works, closed (the port opens and closes) or silent (no banner ever comes)."
  type        = string
  default     = "works"
}

variable "cloud_init" {
  description = "enabled, disabled or absent; the user is there in any case."
  type        = string
  default     = "enabled"
}

locals {
  place = substr(sha256(abspath(path.root)), 0, 8)
}

# The one that cleans up is not the one that can fail: a failed creation taints, and the destroy-time provisioner of a
# tainted resource does not run.
resource "terraform_data" "directory" {
  for_each = var.hosts
  input    = "${var.machines}/${var.environment}-${each.key}-${local.place}"

  provisioner "local-exec" {
    when    = destroy
    command = "exec python3 '${path.module}/machine.py' stop \"$DIRECTORY\""
    environment = {
      DIRECTORY = self.input
    }
  }
}

resource "terraform_data" "machine" {
  for_each = var.hosts
  input    = terraform_data.directory[each.key].output
  triggers_replace = [
    terraform_data.directory[each.key].id,
    jsonencode(each.value),
    nonsensitive(sha256(lookup(var.user_data, each.key, ""))),
  ]

  provisioner "local-exec" {
    command = <<-SHELL
      set -eu
      sleep ${var.apply_delay}
      [ -z "$FAILS" ] || { echo "$FAILS was told to fail" >&2; exit 1; }
      image=$(python3 '${path.module}/image.py')
      printf '%s' "$SPEC" | sed "s|@image@|$image|" | python3 '${path.module}/machine.py' start "$DIRECTORY" > /dev/null
    SHELL
    environment = {
      DIRECTORY = self.input
      FAILS     = contains(var.apply_fails, each.key) ? each.key : ""
      SPEC = jsonencode({
        image          = "@image@"
        name           = each.key
        user_data      = nonsensitive(lookup(var.user_data, each.key, "")) # or OpenTofu hides what the program says
        ssh_public_key = var.ssh_public_key
        user           = var.ssh_user
        forward        = each.value.ports
        cloud_init     = var.cloud_init
        ssh            = var.ssh
        owner          = var.owner == 0 ? null : var.owner
        home           = abspath(path.root)
      })
    }
  }
}

locals {
  # The ports are known once the machine has been started.
  records = {
    for name, machine in terraform_data.machine :
    name => try(jsondecode(file("${machine.output}/machine.json")), { port = 0, ports = {} })
  }
}

output "hosts" {
  value = {
    for name, record in local.records :
    name => {
      address = "127.0.0.1"
      port    = record.port
      user    = var.ssh_user
      ports   = [for machine, host in record.ports : { host = host, machine = tonumber(machine) }]
    }
  }
}
