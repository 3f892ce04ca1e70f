# For scripts that train; they source this.
# once SAVE_DIR COMMAND …: runs a training, unless the very same command has finished in that folder. Run again, fairseq
# would take one update more, and what was made with the model would no longer belong to it.
once() {
  local folder=$1 done=$1/finished.txt
  shift
  if [ -f "$folder/checkpoint_last.pt" ] && [ "$(cat "$done" 2> /dev/null)" = "$*" ]; then
    echo "reused: $folder, whose training has finished"
    return 0
  fi
  rm -f "$done"
  "$@" || return
  printf '%s\n' "$*" > "$done"
}
