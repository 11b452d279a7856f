# A provider whose machines are files: made and removed in milliseconds, so that they can be made thousands of times.
# The test looks at the files, not at what anybody says of them.

variable "environment" { type = string }
variable "hosts" { type = any }
variable "user_data" {
  type      = map(string)
  sensitive = true
}
variable "ssh_public_key" { type = string }
variable "things" { type = string }
variable "pause" {
  type    = string
  default = "0"
}
variable "script" {
  type    = string
  default = "true"
}
variable "token" {
  type      = string
  default   = ""
  sensitive = true
}

# Its destruction must not depend on the success of its making: a tainted resource's destroy provisioner does not run.
resource "terraform_data" "place" {
  for_each = var.hosts
  input    = { path = "${var.things}/${each.key}" }
  provisioner "local-exec" {
    when        = destroy
    command     = "rm -f \"$THING\" \"$THING.began\""
    environment = { THING = self.input.path }
  }
}

resource "terraform_data" "machine" {
  for_each         = var.hosts
  input            = terraform_data.place[each.key].output.path
  triggers_replace = [each.value.cpus]
  provisioner "local-exec" {
    command = "echo $$ > \"$THING.began\" && sleep \"$PAUSE\" && sh -c \"$SCRIPT\" && echo made > \"$THING\""
    environment = {
      THING  = self.input
      PAUSE  = var.pause
      SCRIPT = var.script
    }
  }
}

output "hosts" {
  value = { for name, host in var.hosts : name => { address = host.address, port = host.port, user = host.user } }
}
