# SPDX-License-Identifier: ISC
"""Loads a page in WebKitGTK, and prints the messages that its script posts to `lines`, one a line. Needs a display."""

import sys

import gi
gi.require_version("Gtk", "3.0")
gi.require_version("WebKit2", "4.1")
from gi.repository import Gtk, WebKit2  # noqa: E402

manager = WebKit2.UserContentManager()
manager.connect("script-message-received::lines",
                lambda _, message: print(message.get_js_value().to_string(), flush=True))
manager.register_script_message_handler("lines")
view = WebKit2.WebView(user_content_manager=manager)
window = Gtk.Window()
window.add(view)
window.show_all()
view.load_uri(sys.argv[1])
print(f'{{"type": "version", "data": "{WebKit2.get_major_version()}.{WebKit2.get_minor_version()}"}}', flush=True)
Gtk.main()
