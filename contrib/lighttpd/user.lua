-- SPDX-License-Identifier: ISC
-- lighttpd: passes the user whom mod_auth has verified to the daemon. Called by tpi-stream.conf.
local r = lighty.r
r.req_env["TPI_USER"] = r.req_env["REMOTE_USER"]
return 0
