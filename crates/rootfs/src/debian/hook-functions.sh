
# From here on Kiln's: for one initramfs the functions above ask some ten thousand times for the normal form of a path, for the
# target of what is no link, and for directories that are there. The shell can answer this itself; a process for each would take
# most of the time. Whatever is not plain goes to the program.

# Whether it is an absolute path without anything to normalise.
__kiln_is_plain() {
	case "${1}" in
	/*) ;;
	*) return 1 ;;
	esac
	case "${1}/" in
	*//* | */./* | */../*) return 1 ;;
	esac
	return 0
}

# realpath -ms PATH, realpath -s PATH
realpath() {
	local path
	if [ "${#}" = 2 ]; then
		path="${2}"
		while [ "${path#//}" != "${path}" ]; do
			path="${path#/}"
		done
		if __kiln_is_plain "${path}"; then
			case "${1}" in
			-ms)
				printf '%s\n' "${path}"
				return 0
				;;
			-s)
				if [ -e "${path}" ]; then
					printf '%s\n' "${path}"
					return 0
				fi
				;;
			esac
		fi
	fi
	command realpath "${@}"
}

# readlink -f PATH
readlink() {
	local path
	if [ "${#}" = 2 ] && [ "${1}" = -f ]; then
		if [ "${2}" = /bin ] && [ -h /bin ] && [ ! -h /usr ] && [ ! -h /usr/bin ] && [ /bin -ef /usr/bin ]; then
			echo /usr/bin
			return 0
		fi
		if __kiln_is_plain "${2}" && [ -e "${2}" ]; then
			path="${2}"
			while [ -n "${path}" ] && [ ! -h "${path}" ]; do
				path="${path%/*}"
			done
			if [ -z "${path}" ]; then
				printf '%s\n' "${2}"
				return 0
			fi
		fi
	fi
	command readlink "${@}"
}

# mkdir -p PATH
mkdir() {
	if [ "${#}" = 2 ] && [ "${1}" = -p ] && [ -d "${2}" ]; then
		return 0
	fi
	command mkdir "${@}"
}

# basename PATH
basename() {
	if [ "${#}" = 1 ] && __kiln_is_plain "${1}"; then
		printf '%s\n' "${1##*/}"
		return 0
	fi
	command basename "${@}"
}
