# QEMU machines on this computer: no account, no root, no provider to download.
#
# Each host is two resources, because the destroy-time provisioner of a resource that failed to be created does
# not run: `machine` cannot fail, and its end takes everything away; `running` is the part that may fail.
#
#   change                               what happens
#   cpus, memory, ports, a bigger disk   `running` is replaced: clean power-off, then started on the same disk
#   the process is gone (kill, reboot)   the same
#   the guest is paused (no room here)   the same
#   user_data, image, a smaller disk     `machine` is replaced: cloud-init runs once in a machine's life, and no
#                                        file system here can shrink, so the machine is made afresh
#   the machine's folder or disk is gone the same
#   the folder is a copy of another one  `running` is replaced, which is refused while the machine runs in that one

terraform {
  required_version = ">= 1.6.0"
}

locals {
  folder = { for name in keys(var.hosts) : name => "${path.module}/machines/${name}" }

  # machine.py leaves these files. try(): a missing or torn file means "not there", never a failed plan.
  machine = { for name, folder in local.folder : name => try(jsondecode(file("${folder}/machine.json")), null) }
  process = { for name, folder in local.folder : name => try(jsondecode(file("${folder}/running.json")), null) }

  # For good, as QEMU does with a guest that cannot write: its log ends with the state that it went into.
  paused = {
    for name, folder in local.folder :
    name => can(regex("\\((io-error|internal-error)\\)\\s*$", file("${folder}/qemu.log")))
  }

  # QEMU works inside the machine's folder, so its process is proven by finding our own record through its working
  # directory: a recycled pid cannot have that. Without /proc (macOS) the pid file, which QEMU removes when it ends,
  # has to do; it misses a kill -9.
  alive = {
    for name, folder in local.folder :
    name => fileexists("${folder}/ports.json") && !local.paused[name] && !local.copied[name] && (
      fileexists("/proc/self/stat")
      ? try(file("/proc/${local.process[name].pid}/cwd/running.json") == file("${folder}/running.json"), false)
      : fileexists("${folder}/running.json") && fileexists("${folder}/qemu.pid")
    )
  }

  # A copy of the folder has the record, too, but not the machine: that works where the record says, as long as the very
  # same one is there. Of a folder that was moved it is not. A folder may be called by two names: through a symlink.
  copied = {
    for name, folder in local.folder : name => try(
      !contains([local.process[name].folder, local.process[name].called], abspath(folder))
      && file("${local.process[name].folder}/running.json") == file("${folder}/running.json"),
      false
    )
  }

  # What is there now carries a mark, kept in its record. While it is there the mark stands still and the plan is
  # empty; otherwise uuid(), unknown until the apply, replaces the resource and becomes the new mark. What could not be
  # made yet keeps its mark, too: there is nothing to replace.
  born = {
    for name, host in var.hosts : name => try(file("${local.folder[name]}/begun"), (
      try(local.machine[name].disk <= host.disk && fileexists("${local.folder[name]}/disk.qcow2"), false)
      ? local.machine[name].born : uuid()
    ))
  }
  started = { for name in keys(var.hosts) : name => local.alive[name] ? local.process[name].started : uuid() }

  # The disk that the image needs, in GiB. Of an image that no machine here was made of, nothing is known.
  least = {
    for name in keys(var.hosts) :
    name => try(local.machine[name].image == var.image ? local.machine[name].least : 0, 0)
  }

  # The ports that hosts are to have. A machine that was told any free one must not take another one's.
  promised = [for port in flatten([for host in values(var.hosts) : host.ports[*].host]) : port if port != 0]

  # nonsensitive(): a sensitive value in a provisioner silences its output, progress and errors with it. The text
  # itself travels in an environment variable, packed, and is written nowhere but to the machine's seed.
  user_data = {
    for name in keys(var.hosts) : name => nonsensitive(lookup(var.user_data, name, join("\n", ["#cloud-config", jsonencode({
      locale = false
      users = [{
        name = "deployer", shell = "/bin/bash", sudo = "ALL=(ALL) NOPASSWD:ALL", ssh_authorized_keys = [var.ssh_public_key]
      }]
    })])))
  }
  packed = { for name, text in local.user_data : name => base64gzip(text) }
}

resource "terraform_data" "machine" {
  for_each = var.hosts

  triggers_replace = {
    born      = local.born[each.key]
    image     = var.image
    user_data = sha256(local.user_data[each.key])
  }

  # Before the machine that is there is removed for one that cannot be made.
  lifecycle {
    precondition {
      condition = local.least[each.key] <= each.value.disk
      error_message = format(
        "a disk of %v GiB is too small for the image of %s: %v or more", each.value.disk, each.key, local.least[each.key]
      )
    }
  }

  provisioner "local-exec" {
    when        = destroy
    command     = "exec python3 -B \"${path.module}/machine.py\" remove"
    environment = { DEPLOYER_MACHINE = jsonencode({ name = each.key, id = self.id }) }
  }
}

resource "terraform_data" "running" {
  for_each = var.hosts

  input = { ports = "${local.folder[each.key]}/ports.json" }
  triggers_replace = {
    machine = terraform_data.machine[each.key].id
    size    = each.value
    started = local.started[each.key]
  }

  # Linux takes no environment variable of 128 KiB or more.
  lifecycle {
    precondition {
      condition = length(local.packed[each.key]) <= 120000
      error_message = format(
        "the cloud-config of %s is too long: %d bytes packed, at most 120000", each.key, length(local.packed[each.key])
      )
    }
  }

  # exec: so that machine.py is OpenTofu's own child and knows when OpenTofu has gone.
  provisioner "local-exec" {
    command = "exec python3 -B \"${path.module}/machine.py\" start"
    environment = {
      DEPLOYER_MACHINE = jsonencode(merge(each.value, {
        name        = each.key
        called      = abspath(local.folder[each.key])
        id          = terraform_data.machine[each.key].id
        environment = var.environment
        born        = local.born[each.key]
        started     = local.started[each.key]
        image       = var.image
        promised    = local.promised
      }))
      DEPLOYER_USER_DATA = local.packed[each.key]
    }
  }
}

output "hosts" {
  description = "Where each machine answers, with the ports as they are really forwarded."
  # Read through the resource's own output: unknown, and so not read, until the machine has been started.
  value = {
    for name, running in terraform_data.running :
    name => try(merge(jsondecode(file(running.output.ports)), {
      id      = terraform_data.machine[name].id
      console = "machines/${name}/serial.log"
    }), null)
  }
}
