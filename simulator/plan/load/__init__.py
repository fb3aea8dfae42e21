"""load: chats that come one by one."""
