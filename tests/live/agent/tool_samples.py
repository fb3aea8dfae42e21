"""What the tools of each platform print, after their published formats; names and addresses are made up.

`airport -I`: wi-fi.thenicestword.com/mcs-and-macos. `system_profiler`, `pmset`, `vm_stat`, `networksetup`, `route`:
Apple's manual pages and public transcripts. `iw`, `nmcli`: their manual pages. Termux: the wiki pages of Termux:API.
"""

IW_LINK = """Connected to 02:11:22:33:44:55 (on wlp2s0)
	SSID: home
	freq: 5180.0
	RX: 123456 bytes (789 packets)
	TX: 12345 bytes (67 packets)
	signal: -52 dBm
	rx bitrate: 866.7 MBit/s VHT-MCS 9 80MHz short GI VHT-NSS 2
	tx bitrate: 780.0 MBit/s VHT-MCS 8 80MHz short GI VHT-NSS 2
	bss flags: short-slot-time
"""
IW_NOT_CONNECTED = "Not connected.\n"
IW_POWER_SAVE = "Power save: on\n"
NMCLI = """ :2412 MHz:130 Mbit/s:80
*:2437 MHz:270 Mbit/s:64
 :5500 MHz:405 Mbit/s:30
"""
PROC_WIRELESS = """Inter-| sta-|   Quality        |   Discarded packets               | Missed | WE
 face | tus | link level noise |  nwid  crypt   frag  retry   misc | beacon | 22
wlp2s0: 0000   58.  -52.  -256        0      0      0      0     12        0
"""
PROC_ROUTE = """Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	0100A8C0	0003	0	0	100	00000000	0	0	0
wlp2s0	00000000	0100A8C0	0003	0	0	50	00000000	0	0	0
wlp2s0	0000A8C0	00000000	0001	0	0	600	00FFFFFF	0	0	0
"""
MEMINFO = "MemTotal:       16301544 kB\nMemFree:          800000 kB\nMemAvailable:    9000000 kB\n"
CPUINFO = "processor\t: 0\nmodel name\t: AMD Ryzen 7 7840U w/ Radeon 780M Graphics\n"

AIRPORT = """     agrCtlRSSI: -45
     agrExtRSSI: 0
    agrCtlNoise: -92
          state: running
        op mode: station
     lastTxRate: 1300
        maxRate: 217
           SSID: home
            MCS: 9
        channel: 149,80
"""
SYSTEM_PROFILER = """Wi-Fi:

      Interfaces:
        en0:
          Card Type: Wi-Fi  (0x14E4, 0x4388)
          Supported PHY Modes: 802.11 a/b/g/n/ac/ax
          Supported Channels: 1 (2GHz), 2 (2GHz), 36 (5GHz)
          Status: Connected
          Current Network Information:
            <redacted>:
              PHY Mode: 802.11n
              Channel: 6 (2GHz, 20MHz)
              Country Code: DE
              Network Type: Infrastructure
              Security: WPA2 Personal
              Signal / Noise: -73 dBm / -92 dBm
              Transmit Rate: 144
              MCS Index: 15
          Other Local Wi-Fi Networks:
            <redacted>:
              PHY Mode: 802.11ax
              Channel: 36 (5GHz, 80MHz)
              Signal / Noise: -40 dBm / -90 dBm
"""
PORTS = """
Hardware Port: Ethernet
Device: en1
Ethernet Address: 02:00:00:00:00:01

Hardware Port: Wi-Fi
Device: en0
Ethernet Address: 02:00:00:00:00:02

Hardware Port: Thunderbolt Bridge
Device: bridge0
Ethernet Address: 02:00:00:00:00:03
"""
ROUTE = "   route to: default\ndestination: default\n       mask: default\n    gateway: 192.168.1.1\n  interface: en0\n"
PMSET_BATTERY = """Now drawing from 'Battery Power'
 -InternalBattery-0 (id=4653155)	85%; discharging; 4:20 remaining present: true
"""
PMSET_MAINS = "Now drawing from 'AC Power'\n"
PMSET = " System-wide power settings:\nCurrently in use:\n lowpowermode         1\n sleep                1\n"
VM_STAT = """Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                               50000.
Pages active:                            300000.
Pages inactive:                          200000.
Pages speculative:                         1000.
Pages purgeable:                          10000.
"""

TERMUX_WIFI = """{
  "bssid": "02:00:00:00:00:00",
  "frequency_mhz": 2462,
  "ip": "192.168.1.40",
  "link_speed_mbps": 72,
  "mac_address": "02:00:00:00:00:00",
  "network_id": 3,
  "rssi": -61,
  "ssid": "home",
  "ssid_hidden": false,
  "supplicant_state": "COMPLETED"
}
"""
TERMUX_NO_WIFI = '{"frequency_mhz": -1, "ip": "0.0.0.0", "link_speed_mbps": -1, "rssi": -127}'
TERMUX_BATTERY = """{
  "health": "GOOD",
  "percentage": 42,
  "plugged": "UNPLUGGED",
  "status": "DISCHARGING",
  "temperature": 31.5,
  "current": 250000
}
"""
