-- SPDX-License-Identifier: ISC
-- lighttpd: the response while the daemon is unreachable. Called by tpi-stream.conf.
--
-- lighttpd's own error responses are HTML. The daemon's (503 with Retry-After) are JSON, and pass.
-- After a response other than 200, a browser's EventSource never reconnects; after a 200 that ends, it
-- does, here after ten seconds.
local r = lighty.r
if r.req_item.http_status >= 500 and r.resp_header["Content-Type"] == "text/html" then
	r.resp_header["Content-Type"] = "text/event-stream"
	r.resp_header["Cache-Control"] = "no-cache, no-transform"
	r.resp_body.set("retry: 10000\n\n")
	return 200
end
return 0
