/**
 * The same service for OpenRC (Alpine, Gentoo), as a script for /etc/init.d.
 *
 * Invariant: every value in it passed isFit and has no blank, so that nothing is left for the shell to interpret.
 */
import { EXIT, OperatorError } from "../../errors.ts";
import { lowPorts } from "./places.ts";
import type { ServicePlan } from "./plan.ts";
import { needsLowPorts, stopSeconds } from "./systemd-unit.ts";

/** @throws OperatorError when a path cannot be expressed or the configuration needs what OpenRC does not have */
export function openrcScript({ input, needs }: Pick<ServicePlan, "input" | "needs">): string {
  if (input.scope === "user") {
    throw new OperatorError(EXIT.usage, "--openrc is for system services, without --user");
  }
  if (needs.credentials.length > 0) {
    throw new OperatorError(
      EXIT.config,
      `OpenRC has no credentials, and the configuration takes ${needs.credentials.join(", ")}`,
      "Use ${file:/path} (mode 600, owner the account of the service).",
    );
  }
  const { name, account: given, exec, config, environmentFile } = input;
  const account = given ?? name;
  const paths = [
    exec,
    config,
    needs.stateDir,
    ...(environmentFile === null ? [] : [environmentFile]),
  ];
  for (const path of paths) refuseBlanks(path);
  const sockets = needs.listen.some((one) => one.kind === "unix");
  const capability = needsLowPorts(input, needs) ? "^cap_net_bind_service" : "";
  return `#!/sbin/openrc-run
# Made by \`gatehouse service print --openrc\`. Save it as /etc/init.d/${name} (mode 755), then:
#   addgroup -S ${account}; adduser -S -D -H -h /nonexistent -s /sbin/nologin -G ${account} ${account}
#   rc-update add ${name} default && rc-service ${name} start
# The state in ${needs.stateDir} belongs to ${account}: su -s /bin/sh ${account} -c '${exec} token list -c ${config}'

description="Gatehouse, the gate in front of HTTP services"
supervisor="supervise-daemon"
command="${exec}"
command_args="serve -c ${config}"
command_user="${account}:${account}"
umask="0077"
output_log="/var/log/${name}.log"
error_log="/var/log/${name}.log"
required_files="${config}"
rc_ulimit="-n 65535"
retry="SIGTERM/${stopSeconds(needs)}/SIGKILL/5"
respawn_delay="3"
respawn_max="30"
respawn_period="300"
healthcheck_delay="30"
healthcheck_timer="30"
${capability === "" ? "" : `# Port ${lowPorts(needs.listen).join(", ") || "below 1024"} without root; takes an OpenRC that was built with capabilities.\ncapabilities="${capability}"\n`}# Not by the variable no_new_privs: OpenRC up to 0.45 spells that option wrongly.
supervise_daemon_args="--no-new-privs"

extra_started_commands="reload"
description_reload="Read the configuration anew; the one in force stays when the new one is wrong"

depend() {
	need net localmount
	use dns logger
	after firewall
}

start_pre() {
	ulimit -c 0
${environmentFile === null ? "" : `\tset -a; . "${environmentFile}"; set +a\n`}	checkpath --directory --mode 0700 --owner "${account}:${account}" "${needs.stateDir}"
	checkpath --file --mode 0640 --owner "${account}:${account}" "/var/log/${name}.log"
${sockets ? `\tcheckpath --directory --mode 0750 --owner "${account}:${account}" "/run/${name}"\n` : ""}	# The service refuses to start with a wrong configuration; say why here, and do not try again and again.
	su -s /bin/sh "${account}" -c 'exec "${exec}" config validate -c "${config}"' >/dev/null
}

reload() {
	ebegin "Reloading ${name}"
	su -s /bin/sh "${account}" -c 'exec "${exec}" reload -c "${config}"'
	eend $?
}

healthcheck() {
	"${exec}" healthcheck -c "${config}" >/dev/null 2>&1
}
`;
}

function refuseBlanks(path: string): void {
  if (!/\s/.test(path)) return;
  throw new OperatorError(
    EXIT.usage,
    `an OpenRC script cannot express a path with a blank: ${path}`,
  );
}
